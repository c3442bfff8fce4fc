/**
 * One task: find a lane for a read among those of one pool, or open one on a server that is idle and has the session's settings already.
 *
 * A lane has its server only as long as it has work, and waits for none: where no server is idle, the session waits for one. When it gets
 * one and others wait behind it, its read opens a lane there, and theirs join.
 */
import { loadStatementParser, type StatementParser } from '../../sharding/statement-parser.js';
import type { Pool } from '../pool.js';
import type { ServerConnection } from '../server-connection.js';
import type { SessionSettings } from '../settings.js';
import type { StatementCache } from '../statement-cache.js';
import { Lane } from './lane.js';
import { KnownFacts, type ReadFacts } from './read-facts.js';
import { ReadTemplates } from './read-templates.js';

/** Each is one server process that works while the others may. Of servers that were waited for there may be more. */
const LANES_MAX = 2;
/** With so many in one lane another one is opened. */
const SPREAD_FROM = 12;

/** What a text must be read by: settings under which its letters and quotes are what they seem. */
const READABLE: readonly (readonly [name: string, value: string])[] = [
  ['client_encoding', 'UTF8'],
  ['standard_conforming_strings', 'on'],
];

export class PoolLanes {
  readonly #pool: Pool;
  readonly #statements: StatementCache;
  readonly #facts: KnownFacts;
  #parser: StatementParser | null = null;
  #templates: ReadTemplates | null = null;
  #templatesOf: ReadFacts | null = null;
  readonly #lanes: { readonly lane: Lane; readonly key: string }[] = [];

  constructor(pool: Pool, statements: StatementCache) {
    this.#pool = pool;
    this.#statements = statements;
    this.#facts = new KnownFacts(() => pool.options.endpoint);
    // Without it no read is shared.
    loadStatementParser().then(
      (parser) => (this.#parser = parser),
      () => undefined,
    );
  }

  /** What is known of texts; null: nothing now, and none is shared. */
  templates(): ReadTemplates | null {
    const facts = this.#facts.get(performance.now());
    if (facts === null || this.#parser === null) return null;
    if (this.#templates === null || this.#templatesOf !== facts) {
      this.#templates = new ReadTemplates(this.#parser, facts, this.#statements);
      this.#templatesOf = facts;
    }
    return this.#templates;
  }

  /** The schema may have changed: nothing is shared until it was read again. */
  schemaChanged(): void {
    this.#facts.forget();
  }

  /** The lane with the least to do; null: the read runs by itself. */
  laneFor(settings: SessionSettings): Lane | null {
    let best: Lane | null = null;
    for (const { lane, key } of this.#lanes)
      if (key === settings.key && lane.open && (best === null || lane.depth < best.depth)) best = lane;
    if (best !== null && (best.depth < SPREAD_FROM || this.#lanes.length >= LANES_MAX)) return best;
    return this.#opened(settings) ?? best;
  }

  #opened({ key }: SessionSettings): Lane | null {
    if (this.#lanes.length >= LANES_MAX) return null;
    const server = this.#pool.takeIdle((idle) => idle.settings?.key === key && isReadable(idle));
    return server === null ? null : this.#laneOn(server, key);
  }

  /**
   * A lane on a server that was waited for, while others wait still: {@link Pool.invite} lets them join once it has its first read.
   *
   * @returns null: nobody else waits, or the server is not fit for it as it is
   */
  openOn(server: ServerConnection, { key }: SessionSettings): Lane | null {
    if (this.#pool.waitingCount === 0 || server.settings?.key !== key || !isReadable(server)) return null;
    return this.#laneOn(server, key);
  }

  #laneOn(server: ServerConnection, key: string): Lane {
    const lane = new Lane(server, this.#pool, (ended) => {
      const at = this.#lanes.findIndex((entry) => entry.lane === ended);
      if (at >= 0) this.#lanes.splice(at, 1);
    });
    this.#lanes.push({ lane, key });
    return lane;
  }
}

function isReadable({ parameters }: ServerConnection): boolean {
  return READABLE.every(([name, value]) => parameters.get(name) === value);
}
