/** One task: what must hold after every fault, once it is healed; each violation is a sentence. */
import { compareLedger } from '../../src/dev/ledger/compare.js';
import type { Place } from '../../src/dev/embedded-postgres.js';
import { contentsOf, sameContents } from './contents.js';
import type { DirectWriter } from './direct-writers.js';
import type { Load, Seen } from './load.js';
import { until } from '../support/wait.js';
import { NOTICES } from './spread.js';
import { spreadContents } from './spread-contents.js';
import { shardName, SIDES, type FaultSystem, type Side } from './system.js';

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

const STALL_MARGIN_MS = 2_000;
/** A proxy looks every 5 s for what is older than 10 s. */
const RECOVERY_DEADLINE_MS = 40_000;
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
export async function contents(
  system: FaultSystem,
  load: Load,
  serving: Side,
  equalWithinMs?: number,
): Promise<readonly string[]> {
  const violations: string[] = [];
  const [here, there] = [system.placesOf('source'), system.placesOf('destination')];
  if (!(await sameContents(here, there, [NOTICES], equalWithinMs))) {
    const both = [await contentsOf(here, [NOTICES]), await contentsOf(there, [NOTICES])];
    const different = both[0]?.filter((row, index) => JSON.stringify(row) !== JSON.stringify(both[1]?.[index]));
    violations.push(`the two sides differ in ${different?.map((d) => d.table).join(', ') ?? 'everything'}`);
  }
  const shards = system.placesOf(serving);
  if (system.shards > 1) violations.push(...(await spreadContents(shards, load, system.history)));
  else violations.push(...(await ledgerContents(system, load, serving)));
  for (const writer of system.directWriters) violations.push(...(await directContents(writer, shards)));
  return violations;
}

async function ledgerContents(system: FaultSystem, load: Load, serving: Side): Promise<readonly string[]> {
  const violations: string[] = [];
  const found = await compareLedger(system[serving].endpoint('app'), load, system.history);
  for (const list of ['lost', 'doubled', 'unexpected'] as const)
    if (found[list].length > 0)
      violations.push(`${found[list].length.toString()} ${list}: ${found[list].slice(0, SHOWN_MAX).join(', ')}`);
  if (!found.balanceOk) violations.push('the balances are wrong');
  if (!found.historyOk) violations.push('rows loaded before the move have changed');
  return violations;
}

async function directContents(writer: DirectWriter, serving: readonly Place[]): Promise<readonly string[]> {
  const sql = 'SELECT mark, count(*)::int AS times FROM public.direct_writes WHERE side = $1 GROUP BY mark';
  const found = await Promise.all(
    serving.map(({ cluster, database }) =>
      cluster.query<{ mark: string; times: number }>(database, sql, [writer.name]),
    ),
  );
  // A mark is on one shard only, if nothing is wrong.
  const rows = found.flat();
  const times = new Map(rows.map((row) => [row.mark, row.times]));
  const lost = writer.acknowledged.filter((mark) => !times.has(mark));
  const doubled = rows.filter((row) => row.times > 1);
  const acknowledged = new Set(writer.acknowledged);
  const unexpected = rows.filter(({ mark }) => !acknowledged.has(mark) && !writer.unknown.has(mark));
  const told = (what: string, count: number): string[] =>
    count > 0 ? [`${count.toString()} direct writes at the ${writer.name} ${what}`] : [];
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
  const rows = await Promise.all(SIDES.map((side) => system[side].query<DecisionLine>('app', sql, [identity?.id])));
  const byEpoch = new Map<number, DecisionLine>();
  for (const row of rows.flat()) {
    const known = byEpoch.get(Number(row.epoch))?.decided ?? null;
    if (known === null) byEpoch.set(Number(row.epoch), row);
  }
  return [...byEpoch.values()].sort((a, b) => Number(a.epoch) - Number(b.epoch));
}

/** A time in which a shard of a side may accept writes. */
interface Open {
  readonly name: string;
  readonly fromMs: number;
  toMs: number;
}

/** No row was written at a side while it did not serve, by whomever: all clocks are this machine's. */
export async function wrongSide(system: FaultSystem): Promise<readonly string[]> {
  const lines = await decisions(system);
  const open: Open[] = [];
  for (const { side, shard, name } of system.directWriters)
    open.push(...openTimes(name, side, lines, shard === 0 ? null : await sealsOf(system, shard)));
  const rows = await system.source.query<{ mark: string; side: string; at: string }>(
    'app',
    'SELECT mark, side, extract(epoch FROM at) * 1000 AS at FROM public.direct_writes',
  );
  const wrong = rows.filter(
    ({ side, at }) => !open.some((o) => o.name === side && Number(at) >= o.fromMs && Number(at) <= o.toMs),
  );
  if (wrong.length === 0) return [];
  return [
    `${wrong.length.toString()} direct writes were accepted by a side that did not serve: ${wrong
      .slice(0, SHOWN_MAX)
      .map((w) => `${w.side} at ${w.at}`)
      .join(', ')}`,
  ];
}

/** @param ownSeals when a shard after the first was sealed, by epoch: a moment before or after shard 0, where the decision is; null: shard 0 */
export function openTimes(
  name: string,
  side: Side,
  lines: readonly DecisionLine[],
  ownSeals: ReadonlyMap<number, number> | null,
): readonly Open[] {
  const open: Open[] = side === 'source' ? [{ name, fromMs: 0, toMs: Infinity }] : [];
  for (const { epoch, from_source, state, sealed, decided } of lines) {
    if (sealed === null) continue;
    const last = open.at(-1);
    const own = ownSeals?.get(Number(epoch));
    const leaves = (side === 'source') === from_source;
    // A shard that was not sealed when the epoch was aborted goes on.
    const unsealed = leaves && ownSeals !== null && own === undefined && state === 'aborted';
    if (leaves && last && !unsealed) last.toMs = Math.max(Number(sealed), own ?? 0);
    if (decided === null || unsealed) continue;
    if (leaves === (state === 'aborted')) open.push({ name, fromMs: Number(decided), toMs: Infinity });
  }
  return open;
}

/** When a shard of the destination was sealed, by epoch. */
async function sealsOf(system: FaultSystem, shard: number): Promise<ReadonlyMap<number, number>> {
  const place = system.placesOf('destination')[shard];
  const rows = await place?.cluster.query<{ epoch: string; at: string }>(
    place.database,
    `SELECT epoch, extract(epoch FROM written_at) * 1000 AS at FROM cutover.marker WHERE kind = 'seal' AND shard = $1`,
    [shard],
  );
  return new Map(rows?.map(({ epoch, at }) => [Number(epoch), Number(at)]));
}

/** The decision of an epoch; null when it was never decided, or never begun. */
export async function decisionOf(system: FaultSystem, epoch: number): Promise<string | null> {
  const decision = (await decisions(system)).find((d) => Number(d.epoch) === epoch);
  return (decision?.decided ?? null) === null ? null : (decision?.state ?? null);
}

/** What a fault must not leave behind while the migration goes on. */
export async function leftBehind(system: FaultSystem): Promise<readonly string[]> {
  const violations: string[] = [];
  for (const side of SIDES)
    for (const [shard, place] of system.placesOf(side).entries()) {
      // A stream to or from each shard of the other side.
      const streams = side === 'source' ? system.shards : 1;
      violations.push(...(await leftAt(shardName(side, shard), place, streams)));
    }
  for (const process of system.processes)
    if (!process.running) violations.push(`process ${process.name} has ended: ${process.output.slice(-500)}`);
  return violations;
}

async function leftAt(name: string, { cluster, database }: Place, streams: number): Promise<readonly string[]> {
  const violations: string[] = [];
  const slots = await cluster.query<{ slot_name: string }>(
    database,
    'SELECT slot_name FROM pg_replication_slots WHERE NOT temporary ORDER BY 1',
  );
  if (slots.length !== streams)
    violations.push(`slots at the ${name}: ${slots.map((s) => s.slot_name).join(', ') || 'none'}`);
  const sessions = await cluster.query<{ what: string }>(
    database,
    `SELECT application_name || ': ' || query AS what FROM pg_stat_activity
     WHERE state LIKE 'idle in transaction%' AND now() - state_change > interval '1 second'`,
  );
  for (const { what } of sessions) violations.push(`an open transaction at the ${name}: ${what}`);
  const prepared = await cluster.query(database, 'SELECT FROM pg_prepared_xacts');
  if (prepared.length > 0) violations.push(`prepared transactions at the ${name}`);
  return violations;
}

/** What a proxy that died has left prepared, of a write on several shards, any other ends. */
export async function nothingPrepared(system: FaultSystem): Promise<readonly string[]> {
  const ended = async (): Promise<boolean> => {
    const counts = await Promise.all(
      system
        .placesOf('destination')
        .map(({ cluster, database }) => cluster.query(database, 'SELECT FROM pg_prepared_xacts')),
    );
    return counts.flat().length === 0;
  };
  if (system.shards === 1) return [];
  return until('nothing is left prepared', ended, RECOVERY_DEADLINE_MS).then(
    () => [],
    () => ['transactions are left prepared, and nobody ends them'],
  );
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
    const shards = system.placesOf(side);
    let open = 0;
    for (const place of shards) if (await accepts(place)) open += 1;
    if (open > 0) accepting.push(open === shards.length ? side : `${side} in part`);
  }
  return accepting;
}

async function accepts({ cluster, database }: Place): Promise<boolean> {
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
    `SELECT tgname AS what FROM pg_trigger WHERE NOT tgisinternal AND tgname <> 'book' AND EXISTS (SELECT FROM cutover.fence WHERE state = 'open')`,
  ];
  const violations: string[] = [];
  for (const side of SIDES)
    for (const [shard, { cluster, database }] of system.placesOf(side).entries())
      for (const query of queries)
        for (const { what } of await cluster.query<{ what: string }>(database, query))
          violations.push(`left at PostgreSQL ${cluster.major.toString()}, the ${shardName(side, shard)}: ${what}`);
  return violations;
}

function rounded(ms: number): string {
  return Math.round(ms).toString();
}
