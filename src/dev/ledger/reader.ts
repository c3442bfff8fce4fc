/** One task: one reader: see that what was acknowledged can be read, and that time does not run backwards. */
import { nowMs, type AcknowledgedWrite } from './book.js';
import { Client, type ClientContext } from './client.js';
import type { Statement, Style } from './session.js';

export interface ReaderStatistics {
  readonly reads: number;
  /** longest wait for the answer to one read */
  readonly longestStallMs: number;
  /** reads whose newest entry was older than one read before: they came from a side that lags */
  readonly wentBack: number;
  /** writes acknowledged before the read was sent and not found by it */
  readonly missed: readonly string[];
}

export interface Reader {
  readonly client: Client;
  readonly statistics: ReaderStatistics;
}

const STYLES: readonly Style[] = ['simple', 'extended', 'prepared'];
const NO_TOKEN = '00000000-0000-0000-0000-000000000000';
interface Seen {
  reads: number;
  longestStallMs: number;
  wentBack: number;
  missed: string[];
  newest: bigint;
}

/** A reader over its own connection; it looks for the write that was acknowledged last. */
export function reader(context: ClientContext): Reader {
  const seen: Seen = { reads: 0, longestStallMs: 0, wentBack: 0, missed: [], newest: 0n };
  const client = new Client(context, async (session, turn) => {
    const write = context.book.acknowledged.at(-1);
    const sentAtMs = nowMs();
    const [row] = await session.send(readOf(write), STYLES[turn % STYLES.length] ?? 'simple');
    seen.longestStallMs = Math.max(seen.longestStallMs, nowMs() - sentAtMs);
    seen.reads += 1;
    const newest = BigInt(String(row?.newest));
    if (newest < seen.newest) seen.wentBack += 1;
    else seen.newest = newest;
    if (write !== undefined && row?.found === '0') seen.missed.push(write.token);
  });
  return { client, statistics: seen };
}

/** Reads the newest entry of all, and how often a write is there. */
function readOf(write: AcknowledgedWrite | undefined): Statement {
  const found = `(SELECT count(*) FROM ${write?.table ?? 'entries'} WHERE token = $1)::text`;
  const text = `SELECT coalesce((SELECT max(id) FROM entries), 0)::text AS newest, ${found} AS found`;
  return { text, values: [write?.token ?? NO_TOKEN], command: 'SELECT', rowCount: 1 };
}
