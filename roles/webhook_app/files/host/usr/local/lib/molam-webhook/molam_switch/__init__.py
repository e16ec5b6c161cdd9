"""Which release serves on this host, and how another one comes in its place without a dropped request."""
