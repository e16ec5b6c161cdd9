-- Who may do what: all of it, and the only place that says so. Applied after every migration, in its transaction.
-- A role that does not exist is passed over; where none does (one role runs everything) nothing changes.
DO $grants$
DECLARE
  web CONSTANT text := 'molam_webhook';
  worker CONSTANT text := 'molam_webhook_worker';
  owner CONSTANT text := 'molam_webhook_owner';
  login text;
BEGIN
  FOR login IN SELECT rolname FROM pg_roles WHERE rolname IN (web, worker, owner) LOOP
    EXECUTE format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login);
    IF login <> owner THEN
      EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %I', login);
      EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', login);
    END IF;
  END LOOP;

  -- The web process adds events and knows those that were; it cannot change or remove one.
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = web) THEN
    EXECUTE format('GRANT SELECT, INSERT ON event_ids, selftest_events TO %I', web);
    EXECUTE format('GRANT INSERT ON webhook_deliveries, event_conflicts TO %I', web);
  END IF;

  -- The worker reads everything, moves events along and keeps the orders; what was delivered it cannot change.
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = worker) THEN
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA public TO %I', worker);
    EXECUTE format(
      'GRANT UPDATE (state, attempts, next_attempt_at, last_error, processed_at) ON webhook_deliveries TO %I', worker);
    EXECUTE format('GRANT INSERT, UPDATE, DELETE ON orders TO %I', worker);
  END IF;
END
$grants$;
