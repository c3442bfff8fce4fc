/**
 * One task: logical replication: one stream from each database, in order, without gaps, as slow as it likes.
 *
 * A stream carries what its own side wrote and nothing that came to it (`origin = none`), so the two directions never loop.
 */
import { range, type Rule } from './rule.js';
import { ENTRY, SIDE_A, THIRD, type State } from './state.js';
import type { World } from './world.js';

const NAMES = ['A', 'B', 'A, shard 1'] as const;

export class Streams {
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  rules(): Rule[] {
    const { bounds } = this.#world;
    const publishers = range(bounds.shards === 2 ? 3 : 2);
    return [
      ...publishers.map((d): Rule => ({
        name: `the stream from ${NAMES[d] ?? ''} brings its next transaction`,
        actor: 'stream',
        step: (s) => this.#deliver(s, d),
      })),
      ...(this.#world.has('wayBackIsMadeAhead')
        ? []
        : [{ name: 'the way back is made', actor: 'stream', step: (s) => this.#makeWayBack(s) } satisfies Rule]),
    ];
  }

  #deliver(s: State, publisher: number): boolean {
    const { layout, record } = this.#world;
    if (!record.reachable(s, SIDE_A) || layout.whole.streamless.get(s) === 1) return false;
    const entry = record.shift(s, publisher);
    if (entry === 0) return false;
    if (this.#world.bounds.failover && publisher === 0) this.#standbyFollows(s);
    const subscriber = publisher === 1 ? 0 : 1;
    const { data, seals, canaries } = layout.database;
    if (entry >= ENTRY.canary) canaries.set(s, canaries.get(s, subscriber) | (1 << (entry - ENTRY.canary)), subscriber);
    else if (entry >= ENTRY.seal) {
      const bit = 1 << (entry - ENTRY.seal + (publisher === THIRD ? 4 : 0));
      seals.set(s, seals.get(s, subscriber) | bit, subscriber);
    } else data.set(s, data.get(s, subscriber) | (1 << (entry - ENTRY.write)), subscriber);
    return true;
  }

  /** The slot is kept on the standby too: its position is that of the subscriber, ahead where the standby lags behind it. */
  #standbyFollows(s: State): void {
    const { layout, record } = this.#world;
    if (layout.whole.timeline.get(s) !== 1 || record.shift(s, THIRD) !== 0) return;
    layout.database.ahead.set(s, layout.database.ahead.get(s, THIRD) + 1, THIRD);
  }

  #makeWayBack(s: State): boolean {
    const { wayBack } = this.#world.layout.whole;
    if (wayBack.get(s) === 1) return false;
    wayBack.set(s, 1);
    return true;
  }
}
