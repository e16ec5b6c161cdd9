-- A database for the receiver on a PostgreSQL of yours, and who may come there (docs/database.md). Once, as somebody who may
-- make roles and databases:
--
--   psql 'host=db.your-shop.internal user=dba dbname=postgres sslmode=verify-full sslrootcert=/etc/ssl/certs/ca-certificates.crt' \
--       --set=ON_ERROR_STOP=1 --file=docs/examples/database.sql
--
-- Then give each login its password: \password molam_webhook_a, and so on.

-- The jobs. What each may do is said by the application's migrations; nobody logs in as them.
CREATE ROLE molam_webhook NOLOGIN;
CREATE ROLE molam_webhook_worker NOLOGIN;
CREATE ROLE molam_webhook_owner NOLOGIN;

-- Who logs in and does a job. Another one, _b, takes turns with it, so that a password changes while events come in.
CREATE ROLE molam_webhook_a LOGIN IN ROLE molam_webhook;
CREATE ROLE molam_webhook_worker_a LOGIN IN ROLE molam_webhook_worker;
CREATE ROLE molam_webhook_owner_a LOGIN IN ROLE molam_webhook_owner;
-- What one of them makes belongs to the job.
ALTER ROLE molam_webhook_a SET role = 'molam_webhook';
ALTER ROLE molam_webhook_worker_a SET role = 'molam_webhook_worker';
ALTER ROLE molam_webhook_owner_a SET role = 'molam_webhook_owner';

-- Who is no superuser gives a database to nobody else than to roles of its own.
GRANT molam_webhook_owner TO CURRENT_USER;
CREATE DATABASE molam OWNER molam_webhook_owner TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';
