/** One task: run seeds from the command line: many of them, or one with its trace. */
import { PLANTED } from './planted.js';
import { simulate, type Verdict } from './simulate.js';

const SEEDS = 1_000;

async function main(args: readonly string[]): Promise<number> {
  const numberAfter = (option: string): number | null => {
    const index = args.indexOf(option);
    const value = Number(args[index + 1]);
    return index >= 0 && Number.isInteger(value) ? value : null;
  };
  if (args.includes('--planted')) return planted(numberAfter('--runs') ?? SEEDS, args.includes('--all'));
  const seed = numberAfter('--seed');
  const runs = numberAfter('--runs') ?? (seed === null ? SEEDS : 1);
  return runs === 1 ? one(seed ?? 1) : many(seed ?? 1, runs);
}

async function one(seed: number): Promise<number> {
  const verdict = await simulate(seed, { traced: true });
  for (const line of verdict.trace) console.log(line);
  console.log(sentence(verdict));
  return verdict.violation ? 1 : 0;
}

async function many(first: number, runs: number): Promise<number> {
  const start = process.hrtime.bigint();
  const used = process.cpuUsage();
  const broken: Verdict[] = [];
  const kinds = new Map<string, number>();
  const sums = { events: 0, epochs: 0, committed: 0, acknowledged: 0, refused: 0, longestWaitMs: 0 };
  for (let seed = first; seed < first + runs; seed++) {
    const verdict = await simulate(seed);
    sums.events += verdict.events;
    for (const kind of verdict.happened) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    sums.epochs += verdict.epochs;
    sums.committed += verdict.committed;
    sums.acknowledged += verdict.acknowledged;
    sums.refused += verdict.refused;
    sums.longestWaitMs = Math.max(sums.longestWaitMs, verdict.longestWaitMs);
    if (!verdict.violation) continue;
    broken.push(verdict);
    console.log(sentence(verdict));
  }
  const minutes = Number(process.hrtime.bigint() - start) / 60e9;
  const { user, system } = process.cpuUsage(used);
  const cpuMinutes = (user + system) / 60e6;
  console.log(
    `${runs.toString()} seeds, ${Math.round(runs / minutes).toString()} a minute (${Math.round(runs / cpuMinutes).toString()} a minute of one core), ${broken.length.toString()} broken; ` +
      `${sums.epochs.toString()} epochs (${sums.committed.toString()} committed), ${sums.acknowledged.toString()} writes acknowledged, ` +
      `${sums.refused.toString()} refused, ${sums.events.toString()} events, longest wait ${sums.longestWaitMs.toFixed(0)} ms`,
  );
  console.log(`faults: ${[...kinds].map(([kind, count]) => `${kind} ${count.toString()}`).join(', ')}`);
  return broken.length === 0 ? 0 : 1;
}

/** Which seed finds each planted fault; with `all`, how many do: the first one is luck, their number hardly is. */
async function planted(runs: number, all: boolean): Promise<number> {
  let missed = 0;
  for (const { step, what, parts } of PLANTED) {
    const found: Verdict[] = [];
    for (let seed = 1; seed <= runs && (all || found.length === 0); seed++) {
      const verdict = await simulate(seed, { planted: parts });
      if (verdict.violation) found.push(verdict);
    }
    const [first] = found;
    if (!first) missed += 1;
    const count = all ? `${found.length.toString()} of ${runs.toString()} seeds, the first: ` : '';
    console.log(`${step}: ${what}: ${count}${first ? sentence(first) : `not found in ${runs.toString()} seeds`}`);
  }
  return missed === 0 ? 0 : 1;
}

function sentence({ seed, violation, faults }: Verdict): string {
  const outcome = violation ? `${violation.invariant} at ${violation.atMs.toFixed(1)} ms: ${violation.what}` : 'holds';
  return `seed ${seed.toString()}: ${outcome} [${faults || 'no fault'}]`;
}

process.exitCode = await main(process.argv.slice(2));
