CREATE SCHEMA shop;
CREATE TABLE shop.shipments (
  order_id text PRIMARY KEY,
  event_id text NOT NULL,
  paid_at timestamptz NOT NULL
);
GRANT USAGE ON SCHEMA shop TO molam_webhook_worker;
GRANT SELECT, INSERT ON shop.shipments TO molam_webhook_worker;
