/** One task: `npm run demo`: move a live database to another PostgreSQL, back, and there again, and count every write. */
import { parseArgs } from 'node:util';
import { CutoverError, messageOf } from '../errors/errors.js';
import type { Major } from '../dev/embedded-postgres.js';
import { Cleanup, interrupted } from './demo/cleanup.js';
import { detail, heading, secondsSince } from './demo/print.js';
import { setStage, type Stage } from './demo/stage.js';
import { tell } from './demo/story.js';
import { failuresOf } from './demo/verdict.js';

const USAGE = `Usage: npm run demo -- [options]
  --from 17 --to 18   majors of the two clusters (14 to 18)
  --rows 1000000      rows loaded before the move
  --writers 8         writing clients
  --keep              leave everything running at the end, until Ctrl-C
`;

const OPTIONS = {
  from: { type: 'string', default: '17' },
  to: { type: 'string', default: '18' },
  rows: { type: 'string', default: '1000000' },
  writers: { type: 'string', default: '8' },
  keep: { type: 'boolean', default: false },
  // For the test that a lost write is noticed.
  'lose-one-write': { type: 'boolean', default: false },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

interface Options {
  readonly from: Major;
  readonly to: Major;
  readonly rows: number;
  readonly writers: number;
  readonly keep: boolean;
  readonly loseOneWrite: boolean;
}

const MAJORS: readonly Major[] = [14, 15, 16, 17, 18];

/** Reads the command line; null when help was asked for. @throws Error naming the option that is wrong */
function readOptions(): Options | null {
  const { values } = parseArgs({ options: OPTIONS });
  if (values.help) return null;
  const count = (name: 'rows' | 'writers', max: number): number => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= 1 && value <= max) return value;
    throw new Error(`--${name} is a whole number from 1 to ${max.toString()}`);
  };
  const major = (name: 'from' | 'to'): Major => {
    const found = MAJORS.find((known) => known.toString() === values[name]);
    if (found === undefined) throw new Error(`--${name} is one of ${MAJORS.join(', ')}`);
    return found;
  };
  return {
    from: major('from'),
    to: major('to'),
    rows: count('rows', 100_000_000),
    writers: count('writers', 100),
    keep: values.keep,
    loseOneWrite: values['lose-one-write'],
  };
}

async function run(options: Options, cleanup: Cleanup): Promise<number> {
  const started = performance.now();
  heading(`Start: PostgreSQL ${options.from.toString()} and ${options.to.toString()}, Temporal, the proxy`);
  const stage = await setStage({ from: options.from, to: options.to, ui: true, report: detail }, cleanup);
  describe(stage);
  const facts = await tell(stage, options, cleanup);
  const failures = failuresOf(facts);
  heading(failures.length === 0 ? 'Result: nothing lost, nothing doubled, nothing refused' : 'Result: FAILED');
  for (const failure of failures) detail(failure);
  detail(`Temporal, every step of every move: ${stage.temporal.uiAddress ?? stage.temporal.address}`);
  detail(`took ${secondsSince(started)}`);
  const exitCode = failures.length === 0 ? 0 : 1;
  process.exitCode = exitCode;
  return options.keep ? untilInterrupted(stage) : exitCode;
}

function describe(stage: Stage): void {
  for (const cluster of [stage.source, stage.destination]) {
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
