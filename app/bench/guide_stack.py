"""The deployment guide's Python stack, as fair and as small as it goes: Flask on gunicorn with four workers, pooled
psycopg2 connections, Redis for idempotency, one INSERT and one COMMIT for each event.

Run by gunicorn as the guide says (`gunicorn --workers 4 --bind … app:app`); its settings are environment variables.
"""

import hashlib
import hmac
import json
import logging
import os
import time

import redis
from flask import Flask, Response, jsonify, request
from psycopg2.pool import ThreadedConnectionPool

INSERT = "INSERT INTO webhook_deliveries (event_id, event_type, payload, signature) VALUES (%s, %s, %s, %s)"
WINDOW_MS = 300_000
SECRET = os.environ["MOLAM_WEBHOOK_SECRET"].encode()

logging.basicConfig(level=logging.INFO, format="%(message)s")
logger = logging.getLogger("molam-webhook")
app = Flask(__name__)
pool = ThreadedConnectionPool(5, 20, os.environ["DATABASE_URL"])
cache = redis.Redis.from_url(os.environ["REDIS_URL"])


@app.post("/molam/webhook")
def webhook() -> tuple[Response, int]:
    """Verify, look the event up in Redis, store it, mark it there for 24 hours."""
    body = request.get_data()
    header = request.headers.get("Molam-Signature", "")
    fields = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    expected = hmac.new(SECRET, fields.get("t", "").encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, fields.get("v1", "")):
        return jsonify(error="invalid signature"), 401
    if abs(time.time() * 1000 - int(fields["t"])) > WINDOW_MS:
        return jsonify(error="timestamp out of window"), 401
    event = json.loads(body)
    key = f"event:{event['id']}"
    if cache.exists(key):
        return jsonify(status="duplicate"), 200
    connection = pool.getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(INSERT, (event["id"], event["type"], body.decode(), header))
    finally:
        pool.putconn(connection)
    cache.setex(key, 86400, "1")
    data = event.get("data", {})
    fields = {"event_id": event["id"], "event_type": event["type"], "payment_id": data.get("id")}
    logger.info(json.dumps({"message": "Webhook received", **fields, "amount": data.get("amount")}))
    return jsonify(status="accepted"), 200
