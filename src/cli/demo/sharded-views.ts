/** One task: show where the rows of the shop are, and a report over all of its tenants. */
import type { Place } from '../../dev/embedded-postgres.js';
import { TENANT_TABLES } from '../../dev/tenants/shop.js';
import { withConnection } from '../../postgres/connection.js';
import type { Endpoint } from '../../postgres/endpoint.js';
import { detail, milliseconds, thousands } from './print.js';

const SHOWN_TENANTS = 3;

/** The tenants that turned over most; orders, lines and tenants lie on shards by tenant, prices on each of them. */
const REPORT = `
  SELECT o.tenant_id::int AS tenant, count(DISTINCT o.id)::int AS orders, sum(l.quantity)::int AS pieces
    FROM public.orders o JOIN public.lines l ON l.tenant_id = o.tenant_id AND l.order_id = o.id
    JOIN public.items i ON i.code = l.code
   GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ${SHOWN_TENANTS.toString()}`;

/** Asked of the servers themselves, behind the proxy's back. */
export async function printRows(shards: readonly Place[]): Promise<void> {
  for (const [shard, { cluster, database }] of shards.entries()) {
    const counts = TENANT_TABLES.map((table) => `(SELECT count(*)::int FROM public.${table}) AS ${table}`);
    const [row = {}] = await cluster.query<Record<string, number>>(database, `SELECT ${counts.join(', ')}`);
    const rows = TENANT_TABLES.map((table) => `${table} ${thousands(row[table] ?? 0)}`).join(', ');
    const where = `port ${cluster.port.toString()} ${database}`;
    detail(`${shards.length === 1 ? 'all rows' : `shard ${shard.toString()}`} (${where}): ${rows}`);
  }
}

/** Asked through the proxy, as an application asks. */
export async function printReport(application: Endpoint): Promise<void> {
  await withConnection(application, async (connection) => {
    const started = performance.now();
    const { rows } = await connection.query<{ tenant: number; orders: number; pieces: number }>(REPORT);
    detail(`report over all tenants, through the proxy, in ${milliseconds(performance.now() - started)}:`);
    for (const { tenant, orders, pieces } of rows) {
      detail(`  tenant ${tenant.toString()}: ${thousands(orders)} orders, ${thousands(pieces)} pieces`);
    }
  });
}
