/** One task: `npm run model`: explore every scenario, catch every variant, print bounds, states, time and traces. */
import { check } from './check.js';
import { SCENARIOS, type Scenario } from './scenarios.js';
import type { Bounds } from './state.js';
import { VARIANTS, type Variant } from './variants.js';

const withTraces = process.argv.includes('--traces');
let states = 0;
let failures = 0;

print('The protocol of record, every interleaving within these bounds. I1 to I5 hold in every state.');
for (const scenario of SCENARIOS) explore(scenario);
print('\nOne rule taken out. Each must be caught.');
for (const variant of VARIANTS) provoke(variant);
print(
  `\n${states.toString()} states in ${seconds(performance.now())} s; ${failures === 0 ? 'all as it should be' : `${failures.toString()} FAILED`}`,
);
process.exitCode = failures === 0 ? 0 : 1;

function explore(scenario: Scenario): void {
  const start = performance.now();
  const result = check(scenario.bounds, { without: scenario.without ?? [] });
  states += result.states;
  const { violation } = result;
  const outcome = violation === null ? 'holds' : `BREAKS ${violation.invariant}`;
  print(
    `  ${outcome.padEnd(11)} ${scenario.name.padEnd(42)} ${result.states.toString().padStart(8)} states, ` +
      `${result.transitions.toString().padStart(9)} steps, depth ${result.depth.toString().padStart(2)}, ` +
      `${seconds(performance.now() - start)} s\n              ${told(scenario.bounds)}`,
  );
  if (violation === null) return;
  failures += 1;
  printTrace(violation.trace);
}

function provoke(variant: Variant): void {
  const start = performance.now();
  const { violation, states: visited } = check(variant.bounds, {
    without: variant.without,
    watched: [variant.breaks],
  });
  states += visited;
  const outcome = violation === null ? 'NOT CAUGHT' : `caught, ${violation.invariant}`;
  print(
    `  ${outcome.padEnd(11)} ${variant.name.padEnd(82)} ${visited.toString().padStart(7)} states, ` +
      `${(violation?.trace.length ?? 0).toString().padStart(2)} steps, ${seconds(performance.now() - start)} s`,
  );
  if (violation === null) failures += 1;
  else if (withTraces) printTrace(violation.trace);
}

function told(bounds: Bounds): string {
  const { nodes, shards, attempts, writes, next } = bounds;
  const counts = [
    `${nodes.toString()} nodes`,
    `${shards.toString()} shards of A`,
    `${attempts.toString()} epochs`,
    `${writes.toString()} writes`,
  ];
  const faults = [
    bounds.nodeCrashes ? 'nodes die' : 'no node dies',
    ...(bounds.failover ? ['A fails over once'] : []),
    ...(bounds.finalize ? ['finalize'] : []),
    ...(bounds.remove ? ['remove'] : []),
    ...(bounds.openTransactions ? ['transactions stay open'] : []),
  ];
  return [...counts, ...(attempts > 1 ? [`second epoch: ${next}`] : []), ...faults].join(', ');
}

function printTrace(trace: readonly string[]): void {
  trace.forEach((step, i) => {
    print(`      ${(i + 1).toString().padStart(2)}. ${step}`);
  });
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
