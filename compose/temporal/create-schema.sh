#!/bin/sh
# One task: create Temporal's two databases, or bring them up to this version. May run again.
set -eu

# The connection comes from SQL_PLUGIN, SQL_HOST, SQL_PORT, SQL_USER and SQL_PASSWORD.
for database in temporal temporal_visibility; do
  case "$database" in
    temporal) schema=temporal ;;
    temporal_visibility) schema=visibility ;;
  esac
  # Both fail when it was done before; whether it was done shows in the update, which must succeed.
  temporal-sql-tool --db "$database" create || true
  temporal-sql-tool --db "$database" setup-schema -v 0.0 || true
  temporal-sql-tool --db "$database" update-schema -d "/etc/temporal/schema/postgresql/v12/$schema/versioned"
done
