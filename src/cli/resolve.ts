/** One task: `cutover resolve`: show what both sides say of each epoch that is not over, and carry out what a person decides. */
import { loadConfig, type ConfigFiles } from '../config/load.js';
import { CutoverError } from '../errors/errors.js';
import { abortByHand, askSides, commitByHand, type SideSays } from '../fleet/by-hand.js';
import { contradictionIn } from '../fleet/contradictions.js';
import { Directory } from '../fleet/directory.js';
import { Connections } from '../postgres/connections.js';
import { isCommitted, type Decision, type RecordState } from '../postgres/record.js';

export interface ResolveOptions {
  readonly files: ConfigFiles;
  /** the name applications connect to; absent: every one is shown */
  readonly database?: string;
  readonly abort?: number;
  readonly commit?: number;
  /** the name of the database once more, typed by the person who decides */
  readonly confirm?: string;
  readonly write: (text: string) => void;
}

/** 0: nothing waits for a person, or what was asked for is done. 2: something is undecided. */
export type ExitCode = 0 | 2;

/** @throws CutoverError `configuration_invalid` | `resolve_forbidden` and what the record answers */
export async function resolve(options: ResolveOptions): Promise<ExitCode> {
  const config = loadConfig(options.files);
  const connections = new Connections({ applicationName: 'cutover resolve' });
  try {
    const directory = new Directory(() => config);
    const sides = await askSides(directory, connections);
    const epoch = options.abort ?? options.commit;
    if (epoch === undefined) return show(options, sides);
    const database = confirmed(options, epoch);
    const decide = options.abort === undefined ? commitByHand : abortByHand;
    const { outcome } = await decide(sides, database, epoch);
    const serves = outcome === 'committed' ? 'destination' : 'source';
    options.write(`epoch ${epoch.toString()} of "${database}" is ${outcome}: its ${serves} serves\n`);
    return 0;
  } finally {
    await connections.close();
  }
}

/** A decision by hand cannot be taken back, so its name is typed twice. */
function confirmed({ database, abort, commit, confirm }: ResolveOptions, epoch: number): string {
  const forbid = (problem: string): CutoverError => new CutoverError('resolve_forbidden', { epoch, problem });
  if (abort !== undefined && commit !== undefined) throw forbid('it is either --abort or --commit');
  if (database === undefined) throw forbid('name the database: cutover resolve DATABASE --abort EPOCH');
  if (confirm !== database) throw forbid(`to decide by hand add --confirm ${database}`);
  return database;
}

function show({ database, write }: ResolveOptions, sides: readonly SideSays[]): ExitCode {
  // Decisions are shard 0's.
  const records = sides.flatMap((side) => (side.shard === 0 && 'record' in side && side.record ? [side.record] : []));
  const concerned = (decision: Decision): boolean =>
    database === undefined || decision.database === database || decision.peer === database;
  for (const side of sides) {
    const shard = side.shard === 0 ? '' : ` shard ${side.shard.toString()}`;
    write(`${side.name}${shard} (${side.address}): ${saying(side)}\n`);
    if (!('record' in side) || !side.record) continue;
    for (const decision of side.record.decisions.filter(concerned).slice(0, DECISIONS_SHOWN))
      write(`  ${sentence(decision)}\n`);
  }
  const contradiction = contradictionIn(records);
  if (contradiction !== null) write(`! the record contradicts itself: ${contradiction}\n`);
  const open = undecidedIn(records).filter(concerned);
  for (const { epoch, database: name } of open) {
    const typed = `cutover resolve ${name} --abort ${epoch.toString()} --confirm ${name}`;
    write(
      `undecided: epoch ${epoch.toString()} of "${name}"; nodes abort it by themselves once its source answers, or: ${typed}\n`,
    );
  }
  const ready = readyIn(records);
  for (const epoch of ready)
    write(
      `ready: the destination of epoch ${epoch.toString()} waits for a decision of its source; if that is lost for good: --commit ${epoch.toString()}\n`,
    );
  const silent = sides.some((side) => 'problem' in side);
  if (contradiction === null && open.length === 0 && ready.length === 0)
    write(silent ? 'of the servers that answer none has an undecided epoch\n' : 'nothing is undecided\n');
  return contradiction === null && open.length === 0 && ready.length === 0 ? 0 : 2;
}

const DECISIONS_SHOWN = 3;

function saying(side: SideSays): string {
  if ('problem' in side) return `does not answer: ${side.problem}`;
  if (!side.record) return 'has no record: it never was in a migration';
  const { fence, identity } = side.record;
  const accepts = fence.up ? 'refuses writes' : 'accepts writes';
  return `${accepts} (fence ${fence.state}, epoch ${fence.epoch.toString()}, timeline ${identity.timeline.toString()})`;
}

function sentence({ epoch, state, begun_at, decided_at, reason }: Decision): string {
  const when = decided_at === null ? `begun ${begun_at}` : `decided ${decided_at}`;
  return `epoch ${epoch.toString()}: ${state}, ${when}${reason === null ? '' : `: ${reason}`}`;
}

/** Begun, and decided on no side that answers. */
function undecidedIn(records: readonly RecordState[]): readonly Decision[] {
  const all = records.flatMap((record) => record.decisions);
  const decided = (d: Decision): boolean => d.state === 'aborted' || isCommitted(d.state);
  const over = new Set(all.filter(decided).map((d) => d.epoch));
  return all.filter((d) => !decided(d) && !over.has(d.epoch));
}

/** Epochs whose destination is proven, while nobody who answers knows of them. */
function readyIn(records: readonly RecordState[]): readonly number[] {
  const known = new Set(records.flatMap((record) => record.decisions.map((d) => d.epoch)));
  return records.filter((r) => r.fence.state === 'ready' && !known.has(r.fence.epoch)).map((r) => r.fence.epoch);
}
