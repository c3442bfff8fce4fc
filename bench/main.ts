/** One task: `npm run bench -- <name> [options]`: choose a bench and read its options. */
import { parseArgs } from 'node:util';
import { Cleanup, interrupted } from '../src/cli/demo/cleanup.js';
import type { Major } from '../src/dev/embedded-postgres.js';
import { messageOf } from '../src/errors/errors.js';
import { beside } from './beside.js';
import { boot } from './boot.js';
import { bulk } from './bulk.js';
import { copy } from './copy.js';
import { crowd } from './crowd.js';
import { killed } from './killed.js';
import { SCRIPTS, type Script } from './pgbench.js';
import { relay } from './relay.js';
import { shardedReads } from './sharded-reads.js';
import { shardedStall } from './sharded-stall.js';
import { stall } from './stall.js';

const USAGE = `Usage: npm run bench -- <name> [options]
  beside  what the engine beside the proxy adds to the latency of one client, by the slowest thousandth
            --tables 1000  --runs 5 (two switches each)  --seconds 30 (without a move)
  boot    a proxy's start, without and with records of a migration
            --rounds 5
  bulk    much data as a result and as a COPY, direct, through a bare Node relay and through the proxy
            --megabytes 1024  --rounds 3
  copy    rows copied to shards and a backlog drained, beside psql and one plain subscription
            --rows 5000000  --wide 50000  --backlog 200000
  crowd   what idle clients cost the proxy in memory, and when the last of many paused ones is served
            --clients 10000  --rounds 5  --pool 20  --pipelining
  killed  how long clients wait when the engine is killed inside the pause
            --runs 20  --writers 8  --rows 20000  --from 17  --to 18  --think-ms 2  --lease-ms 2000
  reads   reads over two shards, plain and in parts, beside one database with the same rows
            --rows 1000000  --rounds 5
  relay   pgbench -S direct, through PgBouncer, a bare Node relay and the proxy
            --rounds 5  --seconds 4  --clients 8  --shards 1  --script select-only (or tpcb-like, on one shard)  --pipelining
  stall   longest gap between acknowledged writes, per cutover and per rollback
            --runs 20  --writers 8  --tables 0  --rows 20000  --from 17  --to 18  --think-ms 2
            --nodes 1  --idle 0  --temporal-delay-ms 0
            --shards 2: a shop of many tenants to that many shards, with --runs, --writers and --rows alone
`;

const OPTIONS = {
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '4' },
  clients: { type: 'string', default: '8' },
  runs: { type: 'string', default: '20' },
  writers: { type: 'string', default: '8' },
  tables: { type: 'string', default: '0' },
  rows: { type: 'string', default: '20000' },
  megabytes: { type: 'string', default: '1024' },
  pool: { type: 'string', default: '20' },
  wide: { type: 'string', default: '50000' },
  backlog: { type: 'string', default: '200000' },
  from: { type: 'string', default: '17' },
  to: { type: 'string', default: '18' },
  'think-ms': { type: 'string', default: '2' },
  nodes: { type: 'string', default: '1' },
  idle: { type: 'string', default: '0' },
  shards: { type: 'string', default: '1' },
  script: { type: 'string', default: 'select-only' },
  pipelining: { type: 'boolean', default: false },
  'lease-ms': { type: 'string', default: '2000' },
  'temporal-delay-ms': { type: 'string', default: '0' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

/** What `copy` copies when nothing else is said: as many as the ledger has would be over too soon to be measured. */
const COPIED_ROWS = 5_000_000;
const CROWD = 10_000;
const READ_ROWS = 1_000_000;
const MAJORS: readonly Major[] = [14, 15, 16, 17, 18];

type Name = Exclude<keyof typeof OPTIONS, 'help' | 'pipelining'>;

async function run(cleanup: Cleanup): Promise<number> {
  const { values, positionals } = parseArgs({ options: OPTIONS, allowPositionals: true });
  const count = (name: Name, min: number, max: number): number => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= min && value <= max) return value;
    throw new Error(`--${name} is a whole number from ${min.toString()} to ${max.toString()}`);
  };
  const major = (name: 'from' | 'to'): Major => {
    const found = MAJORS.find((known) => known.toString() === values[name]);
    if (found === undefined) throw new Error(`--${name} is one of ${MAJORS.join(', ')}`);
    return found;
  };
  const script = (): Script => {
    const found = SCRIPTS.find((known) => known === values.script);
    if (found === undefined) throw new Error(`--script is one of ${SCRIPTS.join(', ')}`);
    return found;
  };
  const [name] = positionals;
  if (values.help || positionals.length !== 1) {
    process.stdout.write(USAGE);
    return values.help ? 0 : 2;
  }
  switch (name) {
    case 'beside':
      return beside(
        {
          tables: values.tables === OPTIONS.tables.default ? 1_000 : count('tables', 1, 5_000),
          runs: values.runs === OPTIONS.runs.default ? 5 : count('runs', 1, 1_000),
          idleSeconds: values.seconds === OPTIONS.seconds.default ? 30 : count('seconds', 1, 600),
        },
        cleanup,
      );
    case 'boot':
      return boot({ rounds: count('rounds', 1, 100) }, cleanup);
    case 'bulk':
      return bulk({ megabytes: count('megabytes', 1, 100_000), rounds: count('rounds', 1, 100) }, cleanup);
    case 'copy':
      return copy(
        {
          rows: values.rows === OPTIONS.rows.default ? COPIED_ROWS : count('rows', 1, 100_000_000),
          wide: count('wide', 0, 10_000_000),
          backlog: count('backlog', 1, 10_000_000),
        },
        cleanup,
      );
    case 'crowd':
      return crowd(
        {
          clients: values.clients === OPTIONS.clients.default ? CROWD : count('clients', 1, 15_000),
          rounds: count('rounds', 1, 100),
          poolSize: count('pool', 1, 500),
          pipelining: values.pipelining,
        },
        cleanup,
      );
    case 'killed':
      return killed(
        {
          runs: count('runs', 1, 1_000),
          writers: count('writers', 1, 100),
          rows: count('rows', 1, 100_000_000),
          from: major('from'),
          to: major('to'),
          thinkMs: count('think-ms', 0, 1_000),
          leaseMs: count('lease-ms', 500, 60_000),
        },
        cleanup,
      );
    case 'reads':
      return shardedReads(
        {
          rows: values.rows === OPTIONS.rows.default ? READ_ROWS : count('rows', 1_000, 100_000_000),
          rounds: count('rounds', 1, 100),
        },
        cleanup,
      );
    case 'relay':
      await relay(
        {
          rounds: count('rounds', 1, 100),
          seconds: count('seconds', 1, 600),
          clients: count('clients', 1, 500),
          shards: count('shards', 1, 16),
          script: script(),
          pipelining: values.pipelining,
        },
        cleanup,
      );
      return 0;
    case 'stall':
      if (values.shards !== '1')
        return shardedStall(
          {
            runs: count('runs', 1, 1_000),
            writers: count('writers', 1, 100),
            rows: count('rows', 1, 100_000_000),
            shards: count('shards', 2, 8),
          },
          cleanup,
        );
      return stall(
        {
          runs: count('runs', 1, 1_000),
          writers: count('writers', 1, 100),
          tables: count('tables', 0, 5_000),
          rows: count('rows', 1, 100_000_000),
          from: major('from'),
          to: major('to'),
          thinkMs: count('think-ms', 0, 1_000),
          nodes: count('nodes', 1, 16),
          idleClients: count('idle', 0, 15_000),
          temporalDelayMs: count('temporal-delay-ms', 0, 10_000),
        },
        cleanup,
      );
    default:
      process.stderr.write(`bench: there is no bench "${name ?? ''}"\n${USAGE}`);
      return 2;
  }
}

const cleanup = new Cleanup();
try {
  const exitCode = await Promise.race([run(cleanup), interrupted()]);
  await cleanup.run();
  process.exit(exitCode);
} catch (error) {
  process.stderr.write(`bench: ${messageOf(error)}\n`);
  await cleanup.run().catch(() => undefined);
  process.exit(1);
}
