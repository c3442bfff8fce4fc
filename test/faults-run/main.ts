/** One task: `npm run faults -- --seed N --runs N`: real faults from one seed, a JSON line each, and a summary. */
import { parseArgs } from 'node:util';
import { Cleanup, interrupted } from '../../src/cli/demo/cleanup.js';
import { messageOf } from '../../src/errors/errors.js';
import { faultAt } from './plan.js';
import { FaultSeries } from './series.js';

const USAGE = `Usage: npm run faults -- [options]
  --seed 1           which faults
  --runs 20          how many, from --first on
  --first 0          the index of the first
  --only K           that one alone
  --lease 2000       cutover_lease in milliseconds
  --shards 1         how many the destination has, each on a cluster of its own
  --pipelining off   auto: short reads share server connections
`;

const SHARDS_MAX = 4;
const OPTIONS = {
  seed: { type: 'string', default: '1' },
  runs: { type: 'string', default: '20' },
  first: { type: 'string', default: '0' },
  only: { type: 'string' },
  lease: { type: 'string', default: '2000' },
  shards: { type: 'string', default: '1' },
  pipelining: { type: 'string', default: 'off' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

async function run(cleanup: Cleanup): Promise<number> {
  const { values } = parseArgs({ options: OPTIONS });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const count = (name: 'seed' | 'runs' | 'first' | 'only' | 'lease' | 'shards', max: number): number => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= 0 && value <= max) return value;
    throw new Error(`--${name} is a whole number up to ${max.toString()}`);
  };
  const seed = count('seed', 2 ** 31);
  const leaseMs = count('lease', 60_000);
  const first = values.only === undefined ? count('first', 1_000_000) : count('only', 1_000_000);
  const runs = values.only === undefined ? count('runs', 100_000) : 1;
  const faults = Array.from({ length: runs }, (_, offset) => faultAt(seed, first + offset, leaseMs));
  const shards = Math.max(1, count('shards', SHARDS_MAX));
  const { pipelining } = values;
  if (pipelining !== 'auto' && pipelining !== 'off') throw new Error('--pipelining is auto or off');
  const series = new FaultSeries({
    leaseMs,
    shards,
    pipelining,
    print: (line) => process.stdout.write(`${JSON.stringify(line)}\n`),
    repeatWith: (index) =>
      `npm run faults -- --seed ${seed.toString()} --only ${index.toString()} --lease ${leaseMs.toString()} --shards ${shards.toString()} --pipelining ${pipelining}`,
  });
  cleanup.defer('the series', () => series.end());
  return series.run(faults);
}

const cleanup = new Cleanup();
try {
  const exitCode = await Promise.race([run(cleanup), interrupted()]);
  await cleanup.run();
  process.exit(exitCode);
} catch (error) {
  process.stderr.write(`faults: ${messageOf(error)}\n`);
  await cleanup.run().catch(() => undefined);
  process.exit(1);
}
