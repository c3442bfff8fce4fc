/**
 * One task: side A fails over, once, to a physical standby that lags by any number of transactions.
 *
 * The standby is a copy of side A as it was at some moment; catching up copies it anew. Promotion makes that copy side A, on
 * another timeline, and what the standby had not received is gone.
 */
import type { Rule } from './rule.js';
import { A0, B0, SIDE_A, THIRD, type State } from './state.js';
import type { World } from './world.js';

export class Failover {
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  rules(): Rule[] {
    if (!this.#world.bounds.failover) return [];
    const fault = (name: string, step: (s: State) => boolean): Rule => ({ name, actor: 'fault', step });
    return [
      fault('the standby of A catches up', (s) => this.#catchUp(s)),
      fault('A dies', (s) => this.#die(s)),
      { name: 'the keeper looks at A', actor: 'operator', step: (s) => this.#keep(s) },
      { name: 'the standby of A is promoted', actor: 'operator', step: (s) => this.#promote(s) },
    ];
  }

  #catchUp(s: State): boolean {
    const { layout } = this.#world;
    if (layout.whole.timeline.get(s) !== 1 || layout.whole.down.get(s) === 1) return false;
    if (layout.sameDatabase(s, A0, THIRD)) return false;
    layout.copyDatabase(s, A0, THIRD);
    return true;
  }

  #die(s: State): boolean {
    const { whole } = this.#world.layout;
    if (whole.timeline.get(s) !== 1 || whole.down.get(s) === 1) return false;
    whole.down.set(s, 1);
    return true;
  }

  /** By the commit that side B has a copy of. */
  #keep(s: State): boolean {
    const { record } = this.#world;
    if (!record.reachable(s, SIDE_A)) return false;
    for (let epoch = 2; epoch >= 1; epoch--) {
      if (!record.isCommitted(record.decision(s, B0, epoch))) continue;
      const attempt = record.nonce(s, B0, epoch);
      return this.#world.sourceOf(s, attempt) === SIDE_A && record.keep(s, A0, epoch, attempt);
    }
    return false;
  }

  #promote(s: State): boolean {
    const { layout } = this.#world;
    const { whole, database } = layout;
    if (whole.down.get(s) === 0) return false;
    const lost = database.data.get(s, A0) & ~database.data.get(s, THIRD);
    // What an asynchronous standby lacks is lost by the fail-over, not by a cutover, as long as it was to serve.
    if (this.#world.decidedSide(s) === SIDE_A) whole.acknowledged.set(s, whole.acknowledged.get(s) & ~lost);
    // A subscriber that had applied what the standby lacks will take as many new transactions for applied.
    if (database.ahead.get(s, THIRD) > 0) whole.gap.set(s, 1);
    layout.copyDatabase(s, THIRD, A0);
    layout.clearDatabase(s, THIRD);
    layout.flight.set(s, 0, 0);
    whole.down.set(s, 0);
    whole.timeline.set(s, 2);
    return true;
  }
}
