#!/usr/bin/env node
/** One task: the command `cutover`: say what can be done and do it. */
import cluster from 'node:cluster';
import { Command, InvalidArgumentError } from 'commander';
import { startTemporal, type TemporalDevServer } from '../dev/temporal-dev-server.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { STANDARD_ERROR } from '../line-writer.js';
import { runServe, runWorker, runWorkers, type ProcessOptions, type WorkerPlace } from '../main.js';
import { VERSION } from '../version.js';
import { survey } from './survey.js';
import { verify } from './verify.js';
import { coordinator } from './coordinator.js';
import { doctor } from './doctor.js';
import { resolve } from './resolve.js';

const WORKERS_MAX = 64;
const STATEMENTS_MAX = 100_000;

interface FileFlags {
  readonly config: string;
  readonly users: string;
  readonly logLevel?: string;
}

interface ServeFlags extends FileFlags {
  readonly dev: boolean;
  readonly devDatabase: string;
  readonly worker: boolean;
  readonly workerInside: boolean;
  readonly workers: number;
  readonly node?: string;
}

interface DoctorFlags {
  readonly config: string;
  readonly users: string;
  readonly remove: boolean;
}

interface ResolveFlags {
  readonly abort?: number;
  readonly commit?: number;
  readonly confirm?: string;
}

interface VerifyFlags {
  readonly config: string;
  readonly users: string;
  readonly temporal?: string;
}

const program = new Command('cutover')
  .description('Moves the live traffic of a PostgreSQL database to another cluster, and back.')
  .version(VERSION);

withFiles(program.command('serve'))
  .description('serve clients, the admin database and, unless --no-worker, the engine')
  .option('--dev', 'start an embedded Temporal dev server', false)
  .option('--dev-database <file>', 'where the embedded Temporal keeps its data', 'cutover-temporal.db')
  .option('--no-worker', 'run the engine elsewhere (cutover worker)')
  .option('--worker-inside', "run it in the proxy's process: less memory, and what it does may hold clients up", false)
  .option('--workers <n>', 'processes that share the port; each is a node', numberOfWorkers, 1)
  .option('--node <name>', 'which row of [[nodes]] this is')
  .action(async (flags: ServeFlags) => {
    // A worker of its own kind: the supervisor has done the rest.
    if (cluster.isWorker) return runServe(optionsOf(flags, null));
    const temporal = flags.dev ? await startTemporal({ databaseFile: flags.devDatabase, ui: true }) : null;
    if (temporal) sayWhere(temporal);
    try {
      const options = optionsOf(flags, temporal);
      await (flags.workers > 1 ? runWorkers(options, flags.workers) : runServe(options));
    } finally {
      await temporal?.stop();
    }
  });

withFiles(program.command('worker'))
  .description('run the engine alone, for a proxy started with --no-worker')
  .action(async (flags: FileFlags) => {
    await runWorker(filesOf(flags));
  });

program
  .command('doctor')
  .description('list what moves whose workflow is gone have left behind')
  .option('--config <file>', 'databases, limits, cutover', 'pgdog.toml')
  .option('--users <file>', 'users and passwords', 'users.toml')
  .option('--remove', 'remove it', false)
  .action(async ({ config, users, remove }: DoctorFlags) => {
    const write = (text: string): void => void process.stdout.write(text);
    process.exitCode = await doctor({ files: { config, users }, remove, write });
  });

withFiles(program.command('resolve'))
  .description('show what both sides say of each open epoch; decide one by hand when a server is lost for good')
  .argument('[database]', 'the name applications connect to')
  .option('--abort <epoch>', 'its source serves: needs the source', numberOfEpoch)
  .option('--commit <epoch>', 'its destination serves: needs a destination that was proven', numberOfEpoch)
  .option('--confirm <database>', 'the name once more: what is decided cannot be taken back')
  .action(async (database: string | undefined, flags: FileFlags & ResolveFlags) => {
    const { files } = filesOf(flags);
    const { abort, commit, confirm } = flags;
    const given = { database, abort, commit, confirm };
    const known = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
    process.exitCode = await resolve({ files, ...known, write: (text) => process.stdout.write(text) });
  });

program
  .command('coordinator')
  .description('make the database that answers reads over several shards, or bring it in step with their schema')
  .argument('<database>', 'a database with several shards')
  .option('--config <file>', 'databases, limits, cutover', 'pgdog.toml')
  .option('--users <file>', 'users and passwords', 'users.toml')
  .action(async (database: string, files: { config: string; users: string }) => {
    await coordinator({ files, database, write: (text) => process.stdout.write(text) });
  });

program
  .command('survey')
  .description(
    'report where the statements that a database has run (pg_stat_statements) would run on shards; 2 when some are refused',
  )
  .argument('<database>', 'whose statements')
  .requiredOption('--as <database>', 'by the sharding rules of this one')
  .option('--limit <n>', 'statements to look at, those that took most time first', numberOfStatements, 5_000)
  .option('--config <file>', 'databases, limits, cutover', 'pgdog.toml')
  .option('--users <file>', 'users and passwords', 'users.toml')
  .action(async (database: string, flags: { as: string; limit: number; config: string; users: string }) => {
    const { as, limit, ...files } = flags;
    process.exitCode = await survey({ files, database, as, limit, write: (text) => process.stdout.write(text) });
  });

program
  .command('verify')
  .description('compare every table of both sides while writes go on; 1 when they differ')
  .argument('<source>')
  .argument('<destination>')
  .option('--config <file>', 'databases, limits, cutover', 'pgdog.toml')
  .option('--users <file>', 'users and passwords', 'users.toml')
  .option('--temporal <address>', 'host:port of Temporal; wins over file and environment')
  .action(async (source: string, destination: string, { config, users, temporal }: VerifyFlags) => {
    const write = (text: string): void => void process.stdout.write(text);
    const address = temporal === undefined ? {} : { temporalAddress: temporal };
    process.exitCode = await verify({ files: { config, users }, source, destination, write, ...address });
  });

function withFiles(command: Command): Command {
  return command
    .option('--config <file>', 'databases, limits, cutover', 'pgdog.toml')
    .option('--users <file>', 'users and passwords', 'users.toml')
    .option('--log-level <level>', 'error, warn, info, debug; wins over log_level');
}

function optionsOf(flags: ServeFlags, temporal: TemporalDevServer | null): ProcessOptions {
  return {
    ...filesOf(flags),
    worker: placeOf(flags),
    ...(flags.node === undefined ? {} : { node: flags.node }),
    ...(temporal ? { temporalAddress: temporal.address } : {}),
  };
}

function placeOf({ worker, workerInside }: ServeFlags): WorkerPlace {
  if (!worker) return 'elsewhere';
  return workerInside ? 'inside' : 'beside';
}

function numberOfWorkers(text: string): number {
  const workers = Number(text);
  if (Number.isInteger(workers) && workers >= 1 && workers <= WORKERS_MAX) return workers;
  throw new InvalidArgumentError(`a number from 1 to ${WORKERS_MAX.toString()}`);
}

function numberOfStatements(text: string): number {
  const statements = Number(text);
  if (Number.isInteger(statements) && statements >= 1 && statements <= STATEMENTS_MAX) return statements;
  throw new InvalidArgumentError(`a number from 1 to ${STATEMENTS_MAX.toString()}`);
}

function numberOfEpoch(text: string): number {
  const epoch = Number(text);
  if (Number.isSafeInteger(epoch) && epoch >= 1) return epoch;
  throw new InvalidArgumentError('the number of an epoch');
}

function filesOf(flags: FileFlags): { files: { config: string; users: string }; logLevel?: string } {
  const { config, users, logLevel } = flags;
  return { files: { config, users }, ...(logLevel === undefined ? {} : { logLevel }) };
}

function sayWhere(temporal: TemporalDevServer): void {
  process.stderr.write(`Temporal: ${temporal.address}, its pages: ${temporal.uiAddress ?? 'off'}\n`);
}

try {
  await program.parseAsync(process.argv, { from: 'node' });
  // The workflow runtime keeps threads of its own; everything that had to end has ended.
  await STANDARD_ERROR.settled();
  process.exit();
} catch (error) {
  await STANDARD_ERROR.settled();
  const remedy = error instanceof CutoverError ? `\n${error.remedy}` : '';
  process.stderr.write(`cutover: ${messageOf(error)}${remedy}\n`);
  process.exit(1);
}
