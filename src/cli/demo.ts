/** One task: `npm run demo`: move a live database to another PostgreSQL, or to shards, back, and there again, and count every write. */
import { parseArgs } from 'node:util';
import { CutoverError, messageOf } from '../errors/errors.js';
import type { Major } from '../dev/embedded-postgres.js';
import { SHARDING_COLUMN } from '../dev/tenants/shop.js';
import { Cleanup, interrupted } from './demo/cleanup.js';
import { detail, heading, secondsSince } from './demo/print.js';
import { tellSharded } from './demo/sharded-story.js';
import { shardedFailuresOf } from './demo/sharded-verdict.js';
import { setStage, type Stage } from './demo/stage.js';
import { tell } from './demo/story.js';
import { failuresOf } from './demo/verdict.js';

const USAGE = `Usage: npm run demo -- [options]
  --from 17 --to 18   majors of the two clusters (14 to 18)
  --shards 2          move a shop of many tenants to as many shards (2 to 8); majors 16 to 18
  --rows 1000000      rows loaded before the move (200000 with --shards)
  --writers 8         writing clients
  --keep              leave everything running at the end, until Ctrl-C
`;

const OPTIONS = {
  from: { type: 'string', default: '17' },
  to: { type: 'string', default: '18' },
  shards: { type: 'string' },
  rows: { type: 'string' },
  writers: { type: 'string', default: '8' },
  keep: { type: 'boolean', default: false },
  // For the test that a lost write is noticed.
  'lose-one-write': { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

interface Options {
  readonly from: Major;
  readonly to: Major;
  /** undefined: to one database */
  readonly shards: number | undefined;
  readonly rows: number;
  readonly writers: number;
  readonly keep: boolean;
  readonly loseOneWrite: boolean;
}

const PROVEN = 'nothing lost, nothing doubled, nothing refused';
const PROVEN_ON_SHARDS =
  'every acknowledged order is there exactly once, nothing refused, no id given twice, both sides hold the same rows';
const MAJORS: readonly Major[] = [14, 15, 16, 17, 18];
/** Between sides of which one has shards the streams go both ways at once, which 16 is the first to know. */
const MAJORS_WITH_SHARDS: readonly Major[] = [16, 17, 18];

/** Reads the command line; null when help was asked for. @throws Error naming the option that is wrong */
function readOptions(): Options | null {
  const { values } = parseArgs({ options: OPTIONS });
  if (values.help) return null;
  const count = (name: 'rows' | 'writers' | 'shards', given: string, min: number, max: number): number => {
    const value = Number(given);
    if (Number.isInteger(value) && value >= min && value <= max) return value;
    throw new Error(`--${name} is a whole number from ${min.toString()} to ${max.toString()}`);
  };
  const majors = values.shards === undefined ? MAJORS : MAJORS_WITH_SHARDS;
  const major = (name: 'from' | 'to'): Major => {
    const found = majors.find((known) => known.toString() === values[name]);
    if (found === undefined) throw new Error(`--${name} is one of ${majors.join(', ')}`);
    return found;
  };
  return {
    from: major('from'),
    to: major('to'),
    shards: values.shards === undefined ? undefined : count('shards', values.shards, 2, 8),
    rows: count('rows', values.rows ?? (values.shards === undefined ? '1000000' : '200000'), 1, 100_000_000),
    writers: count('writers', values.writers, 1, 100),
    keep: values.keep,
    loseOneWrite: values['lose-one-write'],
  };
}

async function run(options: Options, cleanup: Cleanup): Promise<number> {
  const started = performance.now();
  const { from, to, shards } = options;
  const onShards = shards === undefined ? '' : ` with ${shards.toString()} shards`;
  heading(`Start: PostgreSQL ${from.toString()} and ${to.toString()}${onShards}, Temporal, the proxy`);
  const sharding = shards === undefined ? undefined : { shards, column: SHARDING_COLUMN };
  const stage = await setStage({ from, to, sharding, ui: true, report: detail }, cleanup);
  describe(stage);
  const failures =
    shards === undefined
      ? failuresOf(await tell(stage, options, cleanup))
      : shardedFailuresOf(await tellSharded(stage, options, cleanup));
  heading(failures.length === 0 ? `Result: ${shards === undefined ? PROVEN : PROVEN_ON_SHARDS}` : 'Result: FAILED');
  for (const failure of failures) detail(failure);
  detail(`Temporal, every step of every move: ${stage.temporal.uiAddress ?? stage.temporal.address}`);
  detail(`took ${secondsSince(started)}`);
  const exitCode = failures.length === 0 ? 0 : 1;
  process.exitCode = exitCode;
  return options.keep ? untilInterrupted(stage) : exitCode;
}

function describe(stage: Stage): void {
  const { source, destination } = stage.sides;
  for (const cluster of new Set([source, ...destination].map((place) => place.cluster))) {
    detail(`PostgreSQL ${cluster.major.toString()} at ${cluster.host}:${cluster.port.toString()}`);
  }
  detail(`proxy at ${stage.application.host}:${stage.application.port.toString()}`);
  detail(`Temporal at ${stage.temporal.address}, its pages: ${stage.temporal.uiAddress ?? 'off'}`);
}

/** Pending for ever: a signal ends the process. */
function untilInterrupted({ application, configuration, folder }: Stage): Promise<never> {
  const { host, port, database, user } = application;
  const psql = (as: string, to: string): string => `psql -h ${host} -p ${port.toString()} -U ${as} ${to}`;
  heading('Everything is left running; Ctrl-C ends it');
  detail(`application: ${psql(user, database)}`);
  detail(`operator:    ${psql(configuration.admin.user, configuration.admin.database)}`);
  detail(`passwords and log of the proxy: ${folder}`);
  // A pending promise alone does not keep a process alive.
  setInterval(() => undefined, 2 ** 30);
  return new Promise(() => undefined);
}

function explain(error: unknown): void {
  const remedy = error instanceof CutoverError && error.remedy !== '' ? `\n${error.remedy}` : '';
  process.stderr.write(`demo: ${messageOf(error)}${remedy}\n`);
}

async function main(): Promise<number> {
  const options = readOptions();
  if (options === null) {
    process.stdout.write(USAGE);
    return 0;
  }
  const cleanup = new Cleanup();
  try {
    return await Promise.race([run(options, cleanup), interrupted()]);
  } finally {
    await cleanup.run();
  }
}

try {
  process.exit(await main());
} catch (error) {
  explain(error);
  process.exit(1);
}
