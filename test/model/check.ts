/** One task: put actors, bounds and guards together and explore them. */
import { Ending } from './ending.js';
import { Engines } from './engine.js';
import { Explorer, type Result } from './explore.js';
import { Failover } from './failover.js';
import type { Guard } from './guards.js';
import { Invariants, INVARIANTS, type Invariant } from './invariants.js';
import { Nodes } from './node.js';
import type { Bounds } from './state.js';
import { Streams } from './streams.js';
import { World, type Transitions } from './world.js';
import { Writers } from './writers.js';

/** So many states of a hundred bytes are what a small machine holds. */
const STATES_MAX = 5_000_000;

export interface Setting {
  /** guards taken out */
  readonly without?: readonly Guard[];
  /** the table that says which step may be taken when; the product's own where absent */
  readonly transitions?: Transitions;
  /** the invariants looked at; all where absent */
  readonly watched?: readonly Invariant[];
}

/** Explores all interleavings within `bounds`, until an invariant breaks. */
export function check(bounds: Bounds, setting: Setting = {}): Result {
  const world = new World(bounds, setting.without, setting.transitions);
  const nodes = new Nodes(world);
  const rules = [
    ...new Engines(world, nodes).rules(),
    ...new Ending(world).rules(),
    ...nodes.rules(),
    ...new Writers(world).rules(),
    ...new Streams(world).rules(),
    ...new Failover(world).rules(),
  ];
  return new Explorer(world, rules, new Invariants(world, setting.watched ?? INVARIANTS), STATES_MAX).run();
}
