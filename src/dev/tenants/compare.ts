/** One task: hold what a shop's database contains, asked as its applications ask, against what its clients were told. */
import { withConnection, type Connection } from '../../postgres/connection.js';
import type { Endpoint } from '../../postgres/endpoint.js';
import type { TenantLoad } from './load.js';

export interface ShopComparison {
  /** tokens of orders that were acknowledged and are not there, or with another tenant */
  readonly lost: readonly string[];
  /** tokens of orders that are there more than once */
  readonly doubled: readonly string[];
  /** tokens of orders that are there and nobody was told of */
  readonly unexpected: readonly string[];
  /** tokens of orders without exactly their two lines: their transaction was applied in part */
  readonly inPart: readonly string[];
  /** keys of tenants that count other than the orders acknowledged for them */
  readonly miscounted: readonly string[];
  /** tokens of notes that are not exactly there as acknowledged, on all the shards they belong to */
  readonly notes: readonly string[];
  /** every price was raised as often as its clients were told */
  readonly pricesOk: boolean;
}

const READ_TIMEOUT_MS = 120_000;
const LINES_OF_AN_ORDER = 2;

/** To be called after `load.stop()`: an order acknowledged meanwhile would appear lost. */
export function compareShop(
  endpoint: Endpoint,
  load: Pick<TenantLoad, 'orders' | 'notes' | 'raised'>,
): Promise<ShopComparison> {
  return withConnection(
    endpoint,
    async (connection) => ({
      ...(await compareOrders(connection, load.orders)),
      miscounted: await miscounted(connection, load.orders),
      notes: await wrongNotes(connection, load.notes),
      pricesOk: await pricesOk(connection, load.raised),
    }),
    { queryTimeoutMs: READ_TIMEOUT_MS, applicationName: 'shop' },
  );
}

interface FoundOrder {
  readonly token: string;
  readonly tenant: string;
  readonly lines: number;
}

async function compareOrders(
  connection: Connection,
  acknowledged: ReadonlyMap<string, string>,
): Promise<Pick<ShopComparison, 'lost' | 'doubled' | 'unexpected' | 'inPart'>> {
  const { rows } = await connection.query<FoundOrder>(
    `SELECT o.token::text AS token, o.tenant_id::text AS tenant, count(l.line)::int AS lines FROM public.orders o
       LEFT JOIN public.lines l ON l.tenant_id = o.tenant_id AND l.order_id = o.id GROUP BY o.tenant_id, o.id, o.token`,
  );
  const tenants = new Map(rows.map(({ token, tenant }) => [token, tenant]));
  const seen = new Set<string>();
  const again = ({ token }: FoundOrder): boolean => seen.size === seen.add(token).size;
  return {
    lost: [...acknowledged].filter(([token, tenant]) => tenants.get(token) !== tenant).map(([token]) => token),
    doubled: rows.filter(again).map(({ token }) => token),
    unexpected: [...tenants.keys()].filter((token) => !acknowledged.has(token)),
    inPart: rows.filter(({ lines }) => lines !== LINES_OF_AN_ORDER).map(({ token }) => token),
  };
}

async function miscounted(connection: Connection, acknowledged: ReadonlyMap<string, string>): Promise<string[]> {
  const { rows } = await connection.query<{ tenant: string; orders: number }>(
    'SELECT tenant_id::text AS tenant, orders::int AS orders FROM public.tenants',
  );
  const told = countOf([...acknowledged.values()]);
  const found = new Map(rows.map(({ tenant, orders }) => [tenant, orders]));
  return differing(told, found);
}

async function wrongNotes(connection: Connection, acknowledged: ReadonlyMap<string, number>): Promise<string[]> {
  const { rows } = await connection.query<{ token: string }>(
    'SELECT token::text AS token FROM public.notes WHERE tenant_id IS NOT NULL',
  );
  return differing(acknowledged, countOf(rows.map(({ token }) => token)));
}

async function pricesOk(connection: Connection, raised: number): Promise<boolean> {
  const { rows } = await connection.query<{ raised: number }>(
    'SELECT DISTINCT (price - code * 1.5)::int AS raised FROM public.items',
  );
  return rows.length === 1 && rows[0]?.raised === raised;
}

function countOf<T>(values: readonly T[]): Map<T, number> {
  const counts = new Map<T, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

/** What one counts other than the other; what is not there counts nothing. */
function differing<T>(one: ReadonlyMap<T, number>, other: ReadonlyMap<T, number>): T[] {
  const keys = new Set([...one.keys(), ...other.keys()]);
  return [...keys].filter((key) => (one.get(key) ?? 0) !== (other.get(key) ?? 0));
}
