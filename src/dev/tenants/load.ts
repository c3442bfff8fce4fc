/**
 * One task: a shop of many tenants under load, as an application that means to live on shards writes it: orders with lines inside a tenant,
 * for two tenants in one transaction, prices that are the same everywhere, notes of several tenants in one statement, a report over all of
 * them. What every client was told is kept outside of the database; `compare.ts` holds the database against it.
 */
import { randomInt, randomUUID } from 'node:crypto';
import type { Endpoint } from '../../postgres/endpoint.js';
import { Book, nowMs, type AcknowledgedWrite, type Refusal } from '../ledger/book.js';
import { Client, type ClientContext } from '../ledger/client.js';
import { runClients } from '../ledger/clients.js';
import type { Session, Statement, Style } from '../ledger/session.js';
import { TENANT_KEYS, type TenantKey } from './key.js';
import { TENANTS } from './shop.js';

export interface TenantLoadOptions {
  /** where the application connects */
  readonly endpoint: Endpoint;
  /** clients that order; default 5. Beside them one each that orders for two tenants at once, reports, notes, and raises prices. */
  readonly writers?: number;
  /** of the schema that was made; default: bigint */
  readonly key?: TenantKey;
  /** between two turns of a client; default 12 */
  readonly thinkMs?: number;
}

export interface TenantLoad {
  /** orders whose COMMIT was answered: token → key of the tenant */
  readonly orders: ReadonlyMap<string, string>;
  /** the same, in the order of their acknowledgement */
  readonly acknowledged: readonly AcknowledgedWrite[];
  /** notes of several tenants in one statement that were answered: token → how many rows it has */
  readonly notes: ReadonlyMap<string, number>;
  /** how often every price was raised by one and it was answered */
  readonly raised: number;
  /** every error a client saw, also where nobody knows what became of the write */
  readonly refused: readonly Refusal[];
  /** ids that were given to two orders */
  readonly repeated: readonly string[];
  /** reports over all tenants that counted less than one before them */
  readonly wentBack: number;
  readonly reports: number;
  /** longest wait of any client for the answer to one statement */
  readonly longestStallMs: number;
  /** how many orders were acknowledged between two moments, in milliseconds since 1970 */
  acknowledgedBetween(fromMs: number, toMs: number): number;
  /** longest time between two acknowledged orders of all clients that touches the window */
  longestGapBetween(fromMs: number, toMs: number): number;
  /** longest wait of one writer for one answer that touches the window */
  longestStallBetween(fromMs: number, toMs: number): number;
  /** Lets every client finish its turn and disconnects. May be called again. */
  stop(): Promise<void>;
}

const WRITERS = 5;
const THINK_MS = 12;
const STYLES: readonly Style[] = ['prepared', 'extended', 'simple'];
const NOTED_TENANTS = 3;

/**
 * Writers, a report, a price list and notes, through the proxy, until it is stopped. The schema is `shop.ts`'s.
 *
 * @throws Error when a client cannot log in
 */
export async function startTenants({
  endpoint,
  writers = WRITERS,
  key = TENANT_KEYS.bigint,
  thinkMs = THINK_MS,
}: TenantLoadOptions): Promise<TenantLoad> {
  const book = new Book();
  const shop = new Shop(book, key);
  let stopping = false;
  const client = (name: string, turn: Turn): Client => {
    const context = { name: `shop ${name}`, endpoint, book, thinkMs, ended: () => stopping };
    return clientOf(context, shop, turn);
  };
  const clients = [
    ...Array.from({ length: writers }, (_, index) => client(`writer ${(index + 1).toString()}`, order)),
    client('buyer for two', orderForTwo),
    client('report', report),
    client('notes', note),
    client('prices', raisePrices),
  ];
  const running = await runClients(clients, book, () => {
    stopping = true;
  });
  return Object.assign(shop, { stop: () => running.stop() });
}

/** What the clients were told. */
class Shop {
  readonly key: TenantKey;
  readonly orders = new Map<string, string>();
  readonly notes = new Map<string, number>();
  raised = 0;
  readonly repeated: string[] = [];
  wentBack = 0;
  reports = 0;
  longestStallMs = 0;
  readonly #book: Book;
  readonly #ids = new Set<string>();
  #counted = 0;

  constructor(book: Book, key: TenantKey) {
    this.#book = book;
    this.key = key;
  }

  get acknowledged(): readonly AcknowledgedWrite[] {
    return this.#book.acknowledged;
  }

  get refused(): readonly Refusal[] {
    return this.#book.refused;
  }

  acknowledgedBetween(fromMs: number, toMs: number): number {
    return this.#book.acknowledgedBetween(fromMs, toMs);
  }

  longestGapBetween(fromMs: number, toMs: number): number {
    return this.#book.longestGapBetween(fromMs, toMs);
  }

  longestStallBetween(fromMs: number, toMs: number): number {
    return this.#book.longestStallBetween(fromMs, toMs);
  }

  ordered(token: string, tenant: string, id: string, { client, longestMs }: Talk): void {
    this.orders.set(token, tenant);
    this.#book.acknowledge({ token, table: 'orders', atMs: nowMs(), client, longestStatementMs: longestMs });
    if (this.#ids.has(id)) this.repeated.push(id);
    this.#ids.add(id);
  }

  counted(orders: number): void {
    if (orders < this.#counted) this.wentBack += 1;
    this.#counted = orders;
    this.reports += 1;
  }
}

type Turn = (talk: Talk, shop: Shop) => Promise<void>;

function clientOf(context: ClientContext, shop: Shop, turn: Turn): Client {
  return new Client(context, async (session, number) => {
    const talk = new Talk(context.name, session, STYLES[number % STYLES.length] ?? 'simple');
    try {
      await turn(talk, shop);
    } catch (error) {
      await session.rollback();
      throw error;
    } finally {
      shop.longestStallMs = Math.max(shop.longestStallMs, talk.longestMs);
    }
  });
}

/** The statements of one turn of a client, all in one style of the protocol, and its longest wait for an answer. */
class Talk {
  longestMs = 0;
  readonly client: string;
  readonly #session: Session;
  readonly #style: Style;

  constructor(client: string, session: Session, style: Style) {
    this.client = client;
    this.#session = session;
    this.#style = style;
  }

  async send(
    command: Statement['command'],
    text: string,
    values: Statement['values'] = [],
    rowCount?: number,
  ): Promise<readonly Record<string, unknown>[]> {
    const sentAtMs = nowMs();
    const counted = rowCount === undefined ? {} : { rowCount };
    const rows = await this.#session.send({ command, text, values, ...counted }, this.#style);
    this.longestMs = Math.max(this.longestMs, nowMs() - sentAtMs);
    return rows;
  }
}

/** Some order more than others. */
function someTenant({ key }: Shop): string {
  return key.of(1 + Math.min(randomInt(TENANTS), randomInt(TENANTS)));
}

interface Order {
  readonly token: string;
  readonly tenant: string;
  readonly id: string;
}

/** One transaction within a tenant. */
async function order(talk: Talk, shop: Shop): Promise<void> {
  await orderFor(talk, shop, [someTenant(shop)]);
}

/** One transaction for two tenants, who may be on different shards; in one order, so that no two wait for each other. */
async function orderForTwo(talk: Talk, shop: Shop): Promise<void> {
  const first = randomInt(TENANTS - 1);
  const second = first + 1 + randomInt(TENANTS - 1 - first);
  await orderFor(talk, shop, [shop.key.of(1 + first), shop.key.of(1 + second)]);
}

async function orderFor(talk: Talk, shop: Shop, tenants: readonly string[]): Promise<void> {
  const orders: Order[] = [];
  await talk.send('BEGIN', 'BEGIN');
  for (const tenant of tenants) orders.push(await place(talk, tenant));
  await talk.send('COMMIT', 'COMMIT');
  for (const { token, tenant, id } of orders) shop.ordered(token, tenant, id, talk);
}

async function place(talk: Talk, tenant: string): Promise<Order> {
  const token = randomUUID();
  const insert = `INSERT INTO orders (tenant_id, token, tags, data) VALUES ($1, $2, ARRAY['a', NULL], '{"n": 1}') RETURNING id`;
  const [row] = await talk.send('INSERT', insert, [tenant, token], 1);
  const id = String(row?.id);
  await talk.send('INSERT', 'INSERT INTO lines VALUES ($1, $2, 1, 3, 2), ($1, $2, 2, 4, 1)', [tenant, id], 2);
  await talk.send('UPDATE', 'UPDATE tenants SET orders = orders + 1 WHERE tenant_id = $1', [tenant], 1);
  const total = `SELECT o.id, sum(l.quantity * i.price) FROM orders o JOIN lines l USING (tenant_id) JOIN items i USING (code)
    WHERE o.tenant_id = $1 AND l.order_id = o.id AND o.id = $2 GROUP BY o.id`;
  await talk.send('SELECT', total, [tenant, id], 1);
  return { token, tenant, id };
}

/** Over every shard, by the coordinator where there are several. */
async function report(talk: Talk, shop: Shop): Promise<void> {
  const count = `SELECT count(*)::int AS n FROM orders o JOIN tenants t USING (tenant_id) WHERE o.state = 'new'`;
  const [row] = await talk.send('SELECT', count, [], 1);
  shop.counted(Number(row?.n));
}

/** One statement that writes on several shards. */
async function note(talk: Talk, shop: Shop): Promise<void> {
  const token = randomUUID();
  const first = 1 + (shop.notes.size % (TENANTS - NOTED_TENANTS));
  const rows = Array.from({ length: NOTED_TENANTS }, (_, step) => `('${shop.key.of(first + step)}', $1, 'note')`);
  const insert = `INSERT INTO notes (tenant_id, token, body) VALUES ${rows.join(', ')}`;
  await talk.send('INSERT', insert, [token], rows.length);
  shop.notes.set(token, rows.length);
}

/** A table that is the same on every shard. */
async function raisePrices(talk: Talk, shop: Shop): Promise<void> {
  await talk.send('UPDATE', 'UPDATE items SET price = price + 1');
  shop.raised += 1;
}
