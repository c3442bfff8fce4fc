/** One task: run one seed from its beginning to its verdict. */
import { CriticalSection } from '../../activities/critical-section.js';
import { messageOf } from '../../src/errors/errors.js';
import { LocalNode } from '../../src/fleet/local-node.js';
import type { FaultKind } from './faults.js';
import { installNetwork } from './fake-client.js';
import type { Violation } from './invariants.js';
import { installVirtualTime } from './virtual-time.js';
import { World, type Parts } from './world.js';

export interface Verdict {
  readonly seed: number;
  readonly violation: Violation | null;
  readonly faults: string;
  readonly happened: readonly FaultKind[];
  readonly events: number;
  readonly virtualMs: number;
  readonly longestWaitMs: number;
  readonly acknowledged: number;
  readonly refused: number;
  /** epochs begun, and whether the last one was committed */
  readonly epochs: number;
  readonly committed: number;
  readonly trace: readonly string[];
}

export interface SimulationOptions {
  readonly planted?: Partial<Parts>;
  readonly traced?: boolean;
}

const REAL: Parts = {
  section: CriticalSection,
  node: LocalNode,
  functions: {},
  flagSeen: (database) => database.up,
};
/** Virtual time in which everything must have come to an end. */
const LONGEST_MS = 40_000;
/** After the moves: late faults happen, crashed processes start, nodes read the record again. */
const SETTLE_MS = 2_500;
/** A node that waits for a connection gone silent hears of it by its deadline. */
const SILENCE_MS = 11_000;
const QUIET_MS = 10_000;

export async function simulate(seed: number, options: SimulationOptions = {}): Promise<Verdict> {
  const world = new World(seed, { ...REAL, ...options.planted }, options.traced === true);
  const dies = (error: unknown): void => {
    world.invariants.broken('I4', `a process dies of an error that nobody handles: ${messageOf(error)}`);
  };
  process.on('unhandledRejection', dies);
  const givenBack = [installVirtualTime(world.scheduler), installNetwork(world), world.temporal.install()];
  try {
    await run(world);
  } catch (error) {
    world.invariants.broken('simulation', messageOf(error));
  } finally {
    process.off('unhandledRejection', dies);
    for (const giveBack of givenBack) giveBack();
  }
  return verdictOf(seed, world);
}

async function run(world: World): Promise<void> {
  const { scheduler, invariants } = world;
  const end: { over: boolean; problem: string | null } = { over: false, problem: null };
  const phase = (done: () => boolean, untilMs: number): Promise<void> =>
    scheduler.run(
      () => invariants.violation !== null || done(),
      untilMs,
      () => {
        for (const process of world.processes) if (process.node) invariants.lookAtNode(process.node);
      },
    );
  world.start((problem) => {
    end.over = true;
    end.problem = problem;
  });
  await phase(() => end.over, LONGEST_MS);
  if (!end.over || end.problem !== null) invariants.broken('I4', `the moves do not end: ${end.problem ?? 'no answer'}`);
  world.faults.movesOver();
  await phase(() => false, scheduler.now + SETTLE_MS);
  for (const process of world.processes) process.start();
  if (world.faults.silenced) await phase(() => false, scheduler.now + SILENCE_MS);
  await phase(() => false, scheduler.now + 2 * world.patience.leaseMs);
  world.writersEnded = true;
  await phase(() => world.databases.every((d) => d.open.size === 0), scheduler.now + QUIET_MS);
  await phase(() => world.streams.every((s) => s.quiet || s.broken), scheduler.now + QUIET_MS);
  await phase(() => false, scheduler.now + world.patience.leaseMs);
  if (!invariants.violation) invariants.lookAtTheEnd();
}

function verdictOf(seed: number, world: World): Verdict {
  const { scheduler, invariants, book } = world;
  const decisions = [...world.source.decisions.values(), ...world.destination.decisions.values()];
  const epochs = new Set(decisions.map((d) => d.epoch));
  const committed = new Set(decisions.filter((d) => d.state === 'committed').map((d) => d.epoch));
  return {
    seed,
    violation: invariants.violation,
    faults: world.faults.description,
    happened: world.faults.happenedKinds,
    events: scheduler.events,
    virtualMs: Math.round(scheduler.now),
    longestWaitMs: invariants.longestWaitMs,
    acknowledged: book.outcomes.acknowledged,
    refused: book.outcomes.refused,
    epochs: epochs.size,
    committed: committed.size,
    trace: world.lines,
  };
}
