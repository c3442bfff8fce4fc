/** One task: the two ends of a migration of activities/ending.ts, in the calls between which each may stall. */
import type { Rule } from './rule.js';
import { DECISION, SIDE_A, SIDE_B, type Field, type State } from './state.js';
import type { World } from './world.js';

export class Ending {
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  rules(): Rule[] {
    const { bounds } = this.#world;
    return [...(bounds.finalize ? this.#finalizing() : []), ...(bounds.remove ? this.#removing() : [])];
  }

  /** One call after the other: the number of those done is in `done`. */
  #inTurn(what: string, done: Field, calls: readonly (readonly [string, (s: State) => boolean])[]): Rule[] {
    return calls.map(([name, step], place) => ({
      name: `engine: ${what}: ${name}`,
      actor: 'engine',
      step: (s) => {
        if (done.get(s) !== place || !step(s)) return false;
        done.set(s, place + 1);
        return true;
      },
    }));
  }

  /** `finalizeMigration`. */
  #finalizing(): Rule[] {
    const { layout, record } = this.#world;
    const row = record.recordOf(SIDE_B);
    return this.#inTurn('finalize', layout.whole.finalizing, [
      ['the destination serves, its last epoch is 1', (s) => this.#finalizable(s)],
      ['committed becomes finalizing', (s) => record.setFinal(s, row, 1, DECISION.committed, DECISION.finalizing)],
      ['removes the streams', (s) => this.#removeStreams(s)],
      ['disarms', (s) => this.#disarm(s, this.#world.has('finalizeKeepsTheFence') ? [SIDE_B] : [SIDE_A, SIDE_B])],
      ['finalizing becomes finalized', (s) => record.setFinal(s, row, 1, DECISION.finalizing, DECISION.finalized)],
    ]);
  }

  #finalizable(s: State): boolean {
    const { record } = this.#world;
    return this.#world.servingOf(s)?.side === SIDE_B && record.highestEpoch(s, record.recordOf(SIDE_B)) === 1;
  }

  /** `removeMigration`. */
  #removing(): Rule[] {
    return this.#inTurn('remove', this.#world.layout.whole.removing, [
      ['the source serves and no epoch is open', (s) => this.#removable(s)],
      ['removes the streams', (s) => this.#removeStreams(s)],
      ['disarms the source', (s) => this.#disarm(s, [SIDE_A])],
      ['removes the schema made at the destination', (s) => this.#removeSchema(s)],
    ]);
  }

  #removable(s: State): boolean {
    if (!this.#world.record.reachable(s, SIDE_A)) return false;
    const serving = this.#world.servingOf(s);
    return serving === null || (serving.side === SIDE_A && serving.open < 0);
  }

  #removeStreams(s: State): boolean {
    this.#world.layout.whole.streamless.set(s, 1);
    return true;
  }

  #disarm(s: State, sides: readonly number[]): boolean {
    const { disarmed } = this.#world.layout.whole;
    disarmed.set(
      s,
      sides.reduce((all, side) => all | (1 << side), disarmed.get(s)),
    );
    return true;
  }

  #removeSchema(s: State): boolean {
    this.#world.layout.database.data.set(s, 0, this.#world.record.recordOf(SIDE_B));
    return true;
  }
}
