-- Who may do what: all of it, and the only place that says so. Applied after every migration, in its transaction.
-- A role that does not exist is passed over; where none does (one role runs everything) nothing changes.
DO $grants$
DECLARE
  web CONSTANT text := 'molam_webhook';
  worker CONSTANT text := 'molam_webhook_worker';
  owner CONSTANT text := 'molam_webhook_owner';
  -- Tables of somebody else's (an extension's, a merchant's) are left alone.
  ours CONSTANT text := (
    SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
      AND relowner = (SELECT relowner FROM pg_class WHERE oid = 'public.webhook_deliveries'::regclass)
  );
  login text;
BEGIN
  FOR login IN SELECT rolname FROM pg_roles WHERE rolname IN (web, worker, owner) LOOP
    EXECUTE format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login);
    IF login <> owner THEN
      EXECUTE format('REVOKE ALL ON %s FROM %I', ours, login);
      EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', login);
    END IF;
  END LOOP;

  -- The web process adds events and knows those that were; it cannot change or remove one.
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = web) THEN
    EXECUTE format('GRANT SELECT, INSERT ON event_ids, selftest_events TO %I', web);
    EXECUTE format('GRANT SELECT ON alembic_version TO %I', web);
    EXECUTE format('GRANT INSERT ON webhook_deliveries, event_conflicts TO %I', web);
  END IF;

  -- The worker reads everything, moves events along, sends them on and keeps the orders; what was delivered it cannot
  -- change, and it removes no more than `prune_deliveries` lets it.
  REVOKE ALL ON FUNCTION prune_deliveries FROM PUBLIC;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = worker) THEN
    EXECUTE format('GRANT SELECT ON %s TO %I', ours, worker);
    EXECUTE format(
      'GRANT UPDATE (state, attempts, next_attempt_at, leased_until, lease, leased_by, last_error, processed_at)'
      ' ON webhook_deliveries TO %I', worker);
    EXECUTE format(
      'GRANT INSERT (delivery_id), UPDATE (state, attempts, next_attempt_at, leased_until, lease, leased_by, last_error, done_at)'
      ' ON forwards TO %I', worker);
    EXECUTE format('GRANT EXECUTE ON FUNCTION prune_deliveries TO %I', worker);
    EXECUTE format('GRANT INSERT, UPDATE, DELETE ON orders TO %I', worker);
  END IF;
END
$grants$;
