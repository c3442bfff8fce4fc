/** One task: what must hold after every fault, once it is healed; each violation is a sentence. */
import { compareLedger } from '../../src/dev/ledger/compare.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { contentsOf, sameContents } from './contents.js';
import type { DirectWriter } from './direct-writers.js';
import type { Load, Seen } from './load.js';
import type { FaultSystem } from './system.js';

export interface Outage {
  /** nodes whose clients may have to wait while it lasts */
  readonly nodes: readonly string[];
  readonly fromMs: number;
  readonly toMs: number;
}

export interface Stalls {
  /** longest silence of a client that had nothing to do with the fault */
  readonly bystanderMs: number;
  /** longest silence of a client behind what was hit, less the time of the fault itself */
  readonly affectedMs: number;
  readonly violations: readonly string[];
}

const SIDES = ['source', 'destination'] as const;
const STALL_MARGIN_MS = 2_000;
const SHOWN_MAX = 3;

/** No client may hear nothing for longer than the lease and two seconds, and the time that what it talks to was gone. */
export function stalls(load: Load, seen: Seen, outage: Outage, leaseMs: number): Stalls {
  const limitMs = leaseMs + STALL_MARGIN_MS;
  let bystanderMs = 0;
  let affectedMs = 0;
  const violations: string[] = [];
  for (const silence of load.silences(seen)) {
    const affected = outage.nodes.includes(silence.node);
    const overlapMs = Math.max(0, Math.min(silence.toMs, outage.toMs) - Math.max(silence.fromMs, outage.fromMs));
    const ownMs = silence.toMs - silence.fromMs - (affected ? overlapMs : 0);
    if (affected) affectedMs = Math.max(affectedMs, ownMs);
    else bystanderMs = Math.max(bystanderMs, ownMs);
    if (ownMs > limitMs)
      violations.push(
        `${silence.client} at node ${silence.node} heard nothing for ${rounded(silence.toMs - silence.fromMs)} ms, ` +
          `${rounded(ownMs)} of them its own (limit ${limitMs.toString()}), from ${rounded(silence.fromMs - outage.fromMs)} ms after the fault`,
      );
  }
  const readerMs = seen.reader.longestStallMs;
  const outageMs = outage.nodes.includes(load.readersNode) ? outage.toMs - outage.fromMs : 0;
  if (readerMs - outageMs > limitMs) violations.push(`the reader waited ${rounded(readerMs)} ms for one answer`);
  return { bystanderMs: Math.round(bystanderMs), affectedMs: Math.round(affectedMs), violations };
}

/** Every acknowledged write once at the side that serves, the balances right, both sides equal. Nobody may write meanwhile. */
export async function contents(system: FaultSystem, load: Load, serving: Cluster): Promise<readonly string[]> {
  const violations: string[] = [];
  if (!(await sameContents(system.source, system.destination))) {
    const both = [await contentsOf(system.source), await contentsOf(system.destination)];
    const different = both[0]?.filter((row, index) => JSON.stringify(row) !== JSON.stringify(both[1]?.[index]));
    violations.push(`the two sides differ in ${different?.map((d) => d.table).join(', ') ?? 'everything'}`);
  }
  const found = await compareLedger(serving.endpoint('app'), load, system.history);
  for (const list of ['lost', 'doubled', 'unexpected'] as const)
    if (found[list].length > 0)
      violations.push(`${found[list].length.toString()} ${list}: ${found[list].slice(0, SHOWN_MAX).join(', ')}`);
  if (!found.balanceOk) violations.push('the balances are wrong');
  if (!found.historyOk) violations.push('rows loaded before the move have changed');
  for (const writer of system.directWriters) violations.push(...(await directContents(writer, serving)));
  return violations;
}

async function directContents(writer: DirectWriter, serving: Cluster): Promise<readonly string[]> {
  const rows = await serving.query<{ mark: string; times: number }>(
    'app',
    'SELECT mark, count(*)::int AS times FROM public.direct_writes WHERE side = $1 GROUP BY mark',
    [writer.side],
  );
  const times = new Map(rows.map((row) => [row.mark, row.times]));
  const lost = writer.acknowledged.filter((mark) => !times.has(mark));
  const doubled = rows.filter((row) => row.times > 1);
  const acknowledged = new Set(writer.acknowledged);
  const unexpected = rows.filter(({ mark }) => !acknowledged.has(mark) && !writer.unknown.has(mark));
  const told = (what: string, count: number): string[] =>
    count > 0 ? [`${count.toString()} direct writes at the ${writer.side} ${what}`] : [];
  return [
    ...told('lost', lost.length),
    ...told('doubled', doubled.length),
    ...told('there though refused', unexpected.length),
    ...told(`answered oddly: ${writer.odd.slice(0, SHOWN_MAX).join('; ')}`, writer.odd.splice(0).length),
  ];
}

interface DecisionLine extends Record<string, unknown> {
  readonly epoch: string;
  readonly state: string;
  readonly from_source: boolean;
  readonly sealed: string | null;
  readonly decided: string | null;
}

/** The decisions of both sides, each epoch once, in their order; times in milliseconds since 1970. */
async function decisions(system: FaultSystem): Promise<readonly DecisionLine[]> {
  const [identity] = await system.source.query<{ id: string }>(
    'app',
    'SELECT system_identifier::text AS id FROM pg_control_system()',
  );
  const sql = `SELECT epoch, state, source ->> 'systemIdentifier' = $1 AS from_source,
    extract(epoch FROM sealed_at) * 1000 AS sealed, extract(epoch FROM decided_at) * 1000 AS decided
    FROM cutover.decision`;
  const rows = await Promise.all(
    SIDES.map((side) => system[side].query<DecisionLine>(system.databasesOf(side)[0], sql, [identity?.id])),
  );
  const byEpoch = new Map<number, DecisionLine>();
  for (const row of rows.flat()) {
    const known = byEpoch.get(Number(row.epoch))?.decided ?? null;
    if (known === null) byEpoch.set(Number(row.epoch), row);
  }
  return [...byEpoch.values()].sort((a, b) => Number(a.epoch) - Number(b.epoch));
}

/** No row was written at a side while it did not serve, by whomever: both sides' clocks are this machine's. */
export async function wrongSide(system: FaultSystem): Promise<readonly string[]> {
  const open: { side: string; fromMs: number; toMs: number }[] = [{ side: 'source', fromMs: 0, toMs: Infinity }];
  const shardSealed = await shardSeals(system);
  for (const { epoch, from_source, state, sealed, decided } of await decisions(system)) {
    const [from, to] = from_source ? ['source', 'destination'] : ['destination', 'source'];
    if (sealed === null) continue;
    const last = open.at(-1);
    if (last) last.toMs = Math.max(Number(sealed), from_source ? 0 : (shardSealed.get(Number(epoch)) ?? 0));
    if (decided === null) continue;
    open.push({ side: state === 'aborted' ? from : to, fromMs: Number(decided), toMs: Infinity });
  }
  const rows = await system.source.query<{ mark: string; side: string; at: string }>(
    'app',
    'SELECT mark, side, extract(epoch FROM at) * 1000 AS at FROM public.direct_writes',
  );
  const wrong = rows.filter(
    ({ side, at }) => !open.some((o) => o.side === side && Number(at) >= o.fromMs && Number(at) <= o.toMs),
  );
  if (wrong.length === 0) return [];
  return [
    `${wrong.length.toString()} direct writes were accepted by a side that did not serve: ${wrong
      .slice(0, SHOWN_MAX)
      .map((w) => `${w.side} at ${w.at}`)
      .join(', ')}`,
  ];
}

/** When the shard with the tables was sealed, by epoch: beside shard 0, where the decision is, and a moment before or after it. */
async function shardSeals(system: FaultSystem): Promise<ReadonlyMap<number, number>> {
  if (system.shards === 1) return new Map();
  const rows = await system.destination.query<{ epoch: string; at: string }>(
    'app',
    `SELECT epoch, extract(epoch FROM written_at) * 1000 AS at FROM cutover.marker WHERE kind = 'seal' AND shard = 1`,
  );
  return new Map(rows.map(({ epoch, at }) => [Number(epoch), Number(at)]));
}

/** The decision of an epoch; null when it was never decided, or never begun. */
export async function decisionOf(system: FaultSystem, epoch: number): Promise<string | null> {
  const decision = (await decisions(system)).find((d) => Number(d.epoch) === epoch);
  return (decision?.decided ?? null) === null ? null : (decision?.state ?? null);
}

/** What a fault must not leave behind while the migration goes on. */
export async function leftBehind(system: FaultSystem): Promise<readonly string[]> {
  const violations: string[] = [];
  for (const [name, cluster] of [
    ['source', system.source],
    ['destination', system.destination],
  ] as const) {
    const slots = await cluster.query<{ slot_name: string }>(
      'app',
      'SELECT slot_name FROM pg_replication_slots WHERE NOT temporary ORDER BY 1',
    );
    // A stream to or from each shard of the destination.
    if (slots.length !== system.shards)
      violations.push(`slots at the ${name}: ${slots.map((s) => s.slot_name).join(', ') || 'none'}`);
    const sessions = await cluster.query<{ what: string }>(
      'app',
      `SELECT application_name || ': ' || query AS what FROM pg_stat_activity
       WHERE state LIKE 'idle in transaction%' AND now() - state_change > interval '1 second'`,
    );
    for (const { what } of sessions) violations.push(`an open transaction at the ${name}: ${what}`);
    const prepared = await cluster.query('app', 'SELECT FROM pg_prepared_xacts');
    if (prepared.length > 0) violations.push(`prepared transactions at the ${name}`);
  }
  for (const process of system.processes)
    if (!process.running) violations.push(`process ${process.name} has ended: ${process.output.slice(-500)}`);
  return violations;
}

/** The side that serves accepts writes, and it alone. */
export async function oneWriter(system: FaultSystem, serving: 'source' | 'destination'): Promise<readonly string[]> {
  const accepting = await acceptingSides(system);
  return accepting.join() === serving ? [] : [`writes are accepted by: ${accepting.join(', ') || 'nobody'}`];
}

/** Which sides accept an application's write right now; nothing is written. */
export async function acceptingSides(system: FaultSystem): Promise<readonly string[]> {
  const accepting: string[] = [];
  for (const side of SIDES) {
    const databases = system.databasesOf(side);
    let open = 0;
    for (const database of databases) if (await accepts(system[side], database)) open += 1;
    if (open > 0) accepting.push(open === databases.length ? side : `${side} in part`);
  }
  return accepting;
}

async function accepts(cluster: Cluster, database: string): Promise<boolean> {
  try {
    await cluster.query(database, 'DELETE FROM public.accounts WHERE false');
    return true;
  } catch (error) {
    if ((error as { code?: string }).code !== 'CUT01') throw error;
    return false;
  }
}

/** What the end of the migration must not leave: slots, subscriptions, publications, roles; the fence of the old side stays up. */
export async function leftAtTheEnd(system: FaultSystem): Promise<readonly string[]> {
  const queries = [
    'SELECT slot_name AS what FROM pg_replication_slots',
    'SELECT subname AS what FROM pg_subscription',
    `SELECT pubname AS what FROM pg_publication WHERE pubname LIKE 'cutover%'`,
    `SELECT rolname AS what FROM pg_roles WHERE rolname LIKE 'cutover%'`,
    `SELECT tgname AS what FROM pg_trigger WHERE NOT tgisinternal AND EXISTS (SELECT FROM cutover.fence WHERE state = 'open')`,
  ];
  const violations: string[] = [];
  for (const side of SIDES)
    for (const database of system.databasesOf(side))
      for (const query of queries)
        for (const { what } of await system[side].query<{ what: string }>(database, query))
          violations.push(`left at PostgreSQL ${system[side].major.toString()}, ${database}: ${what}`);
  return violations;
}

function rounded(ms: number): string {
  return Math.round(ms).toString();
}
