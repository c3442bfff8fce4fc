/** One task: hold the connections of a comparison: three for each pair of shards, from which both are read and markers written. */
import { shardsOf, type Side } from '../src/cutover/side.js';
import { invariant } from '../src/errors/invariant.js';
import { connect, type Connection } from '../src/postgres/connection.js';
import type { Passage, Sides } from '../src/postgres/verification/confirm.js';
import { Load } from '../src/postgres/verification/load.js';
import { Markers } from '../src/postgres/verification/marker.js';
import { comparingConnection } from '../src/postgres/verification/session.js';
import { CommittedTogether } from '../src/postgres/verification/together.js';
import type { Part } from './compared-rows.js';
import type { EngineContext } from './context.js';
import type { endsOf } from './stream-ends.js';

/** By the number of the shard. */
export interface Opened {
  readonly serving: readonly Connection[];
  readonly other: readonly Connection[];
  /** to the shards that serve, to write */
  readonly marking: readonly Connection[];
}

export class ComparedShards {
  readonly opened: Opened;
  readonly #clusters: readonly string[];
  readonly #run: string;
  readonly #load = new Load();
  /** by the pair of shards */
  readonly #passages = new Map<string, Passage>();

  private constructor(opened: Opened, clusters: readonly string[], run: string) {
    this.opened = opened;
    this.#clusters = clusters;
    this.#run = run;
  }

  /**
   * All of them or none.
   *
   * @param run names this run for good
   */
  static async connect(
    { directory }: Pick<EngineContext, 'directory'>,
    { publisher, subscriber }: ReturnType<typeof endsOf>,
    run: string,
  ): Promise<ComparedShards> {
    const opened = { serving: [], other: [], marking: [] } as Record<keyof Opened, Connection[]>;
    const shards = new ComparedShards(
      opened,
      shardsOf(publisher).map(({ systemIdentifier }) => systemIdentifier),
      run,
    );
    const endpointOf = (shard: Side): ReturnType<typeof directory.endpointOf> => directory.endpointOf(shard);
    try {
      for (const shard of shardsOf(publisher)) {
        const endpoint = await endpointOf(shard);
        opened.serving.push(await comparingConnection(endpoint));
        opened.marking.push(await connect(endpoint, { applicationName: 'cutover verify marker' }));
      }
      for (const shard of shardsOf(subscriber)) opened.other.push(await comparingConnection(await endpointOf(shard)));
      return shards;
    } catch (error) {
      await shards.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    const { serving, other, marking } = this.opened;
    const all = [...serving, ...other, ...marking];
    await Promise.all(all.map((connection) => connection.end().catch(() => undefined)));
  }

  /** Both sides of one part. */
  sidesOf({ between, serving, other }: Part): Sides {
    const { from, to, within = false } = between ?? { from: 0, to: 0 };
    const [here, there] = [at(this.opened.serving, from), at(within ? this.opened.serving : this.opened.other, to)];
    return {
      serving: { connection: here, where: serving },
      other: { connection: there, where: other },
      passage: this.#passageOf(between),
      load: this.#load,
    };
  }

  #passageOf(between: Part['between']): Passage {
    const { from, to, within = false } = between ?? { from: 0, to: 0 };
    const name = `${from.toString()}${within ? '=' : '-'}${to.toString()}`;
    const known = this.#passages.get(name);
    if (known) return known;
    const of = { cluster: at(this.#clusters, from), shard: from };
    const run = between === null ? this.#run : `${this.#run}/${name}`;
    const { serving, other, marking } = this.opened;
    const passage = within
      ? new CommittedTogether(at(serving, from), at(serving, to))
      : new Markers(at(marking, from), at(other, to), of, run);
    this.#passages.set(name, passage);
    return passage;
  }
}

function at<T>(shards: readonly T[], shard: number): T {
  const found = shards[shard];
  invariant(found !== undefined, 'every shard is connected to');
  return found;
}
