/**
 * One task: applications that write: straight at either side, or through a node.
 *
 * While the fence stands it alone says which side takes a write, whoever sends it, so a direct writer can do all that a client
 * behind a node can. Without the fence there are only clients behind nodes.
 */
import { range, type Rule } from './rule.js';
import { ENTRY, GATE, sideOf, THIRD, type State } from './state.js';
import type { World } from './world.js';

const NAMES = ['A', 'B', 'A, shard 1'] as const;

export class Writers {
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  rules(): Rule[] {
    const { bounds } = this.#world;
    const writer = (name: string, step: (s: State) => boolean): Rule => ({ name, actor: 'writer', step });
    if (!this.#world.has('fence'))
      return [
        ...range(bounds.nodes).flatMap((n) => [
          writer(`a client of node ${n.toString()} begins a write`, (s) => this.#beginAtNode(s, n)),
          writer(`a client of node ${n.toString()} is acknowledged`, (s) => this.#commitAtNode(s, n)),
        ]),
        ...[0, 1].map((d) =>
          writer(`a write whose client is gone commits at ${NAMES[d] ?? ''}`, (s) => this.#commitOpen(s, d, false)),
        ),
      ];
    const databases = bounds.shards === 2 ? [0, 1, THIRD] : [0, 1];
    if (!bounds.openTransactions)
      return databases.map((d) => writer(`a write is acknowledged at ${NAMES[d] ?? ''}`, (s) => this.#write(s, d)));
    return [0, 1].flatMap((d) => [
      writer(`a direct write begins at ${NAMES[d] ?? ''}`, (s) => this.#beginOpen(s, d)),
      writer(`a direct write is acknowledged at ${NAMES[d] ?? ''}`, (s) => this.#commitOpen(s, d, true)),
    ]);
  }

  #write(s: State, database: number): boolean {
    return this.#world.admits(s, database) && this.#append(s, database, true);
  }

  #beginOpen(s: State, database: number): boolean {
    const { flight } = this.#world.layout;
    const side = sideOf(database);
    if (!this.#world.admits(s, database) || flight.get(s, side) > 0 || this.#next(s) === null) return false;
    flight.set(s, 1, side);
    return true;
  }

  #commitOpen(s: State, database: number, acknowledged: boolean): boolean {
    const { flight } = this.#world.layout;
    const side = sideOf(database);
    if (flight.get(s, side) === 0 || !this.#world.record.reachable(s, side)) return false;
    flight.set(s, flight.get(s, side) - 1, side);
    return this.#append(s, database, acknowledged);
  }

  #beginAtNode(s: State, n: number): boolean {
    const { gate, route, flight } = this.#world.layout.node;
    if (gate.get(s, n) !== GATE.open || flight.get(s, n) !== 0 || this.#next(s) === null) return false;
    flight.set(s, route.get(s, n) + 1, n);
    return true;
  }

  #commitAtNode(s: State, n: number): boolean {
    const { flight, gate } = this.#world.layout.node;
    const side = flight.get(s, n) - 1;
    if (side < 0 || gate.get(s, n) === GATE.down) return false;
    flight.set(s, 0, n);
    return this.#append(s, this.#world.record.recordOf(side), true);
  }

  /** The number of the next write; null at the bound. */
  #next(s: State): number | null {
    const { data } = this.#world.layout.database;
    const known = data.get(s, 0) | data.get(s, 1) | data.get(s, this.#world.layout.databases - 1);
    const taken = known | this.#world.layout.whole.acknowledged.get(s);
    const free = range(this.#world.bounds.writes).find((i) => (taken & (1 << i)) === 0);
    return free ?? null;
  }

  #append(s: State, database: number, acknowledged: boolean): boolean {
    const { layout, record } = this.#world;
    const number = this.#next(s);
    if (number === null) return false;
    layout.database.data.set(s, layout.database.data.get(s, database) | (1 << number), database);
    if (acknowledged) layout.whole.acknowledged.set(s, layout.whole.acknowledged.get(s) | (1 << number));
    // Before the way back was made, nothing keeps what side B writes for side A.
    if (database !== 1 || layout.whole.wayBack.get(s) === 1) record.append(s, database, ENTRY.write + number);
    return true;
  }
}
