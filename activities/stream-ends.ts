/** One task: name the streams of a migration: from every shard of the side that publishes to every shard of the one that subscribes. Pure. */
import type { Heading, Migration } from '../src/cutover/contract.js';
import { shardsOf, type Side } from '../src/cutover/side.js';
import { invariant } from '../src/errors/invariant.js';
import { replicationRole, streamName, type ShardPair } from '../src/postgres/streams.js';

export interface Stream extends ShardPair {
  readonly heading: Heading;
  /** of its publication, its slot and its subscription */
  readonly name: string;
  readonly publisher: Side;
  readonly subscriber: Side;
  /** how many shards each side has */
  readonly shards: { readonly publishing: number; readonly subscribing: number };
  /** by which its subscriber reads */
  readonly role: string;
}

/** What a stream needs to be known of a migration. */
type Moved = Pick<Migration, 'id' | 'source' | 'destination'>;

/** The side that publishes and the one that subscribes. */
export function endsOf(
  { source, destination }: Pick<Migration, 'source' | 'destination'>,
  heading: Heading,
): { readonly publisher: Side; readonly subscriber: Side } {
  return heading === 'forward'
    ? { publisher: source, subscriber: destination }
    : { publisher: destination, subscriber: source };
}

/** Whether a side of the migration has several shards. */
export function isSharded({ source, destination }: Pick<Migration, 'source' | 'destination'>): boolean {
  return shardsOf(source).length > 1 || shardsOf(destination).length > 1;
}

/** Every stream of a heading, by the shard that publishes and then by the one that subscribes; one where both sides have one shard. */
export function streamsOf(migration: Moved, heading: Heading): readonly Stream[] {
  const { publisher, subscriber } = endsOf(migration, heading);
  const [publishing, subscribing] = [shardsOf(publisher), shardsOf(subscriber)];
  const sharded = isSharded(migration);
  return publishing.flatMap((source, from) =>
    subscribing.map((destination, to) => ({
      heading,
      name: streamName(migration.id, heading, sharded ? { from, to } : null),
      from,
      to,
      publisher: source,
      subscriber: destination,
      shards: { publishing: publishing.length, subscribing: subscribing.length },
      role: replicationRole(migration.id, heading, sharded ? from : null),
    })),
  );
}

/** Those that leave a shard of the publishing side. */
export function streamsFrom(migration: Moved, heading: Heading, shard: number): readonly Stream[] {
  return streamsOf(migration, heading).filter(({ from }) => from === shard);
}

/** Those that reach a shard of the subscribing side. */
export function streamsTo(migration: Moved, heading: Heading, shard: number): readonly Stream[] {
  return streamsOf(migration, heading).filter(({ to }) => to === shard);
}

/** The one by which a shard of the publishing side is looked at where one is enough: all of its streams have the same tables. */
export function firstFrom(migration: Moved, heading: Heading, shard: number): Stream {
  const [first] = streamsFrom(migration, heading, shard);
  invariant(first, 'every shard publishes');
  return first;
}

/** The same of a shard of the subscribing side. */
export function firstTo(migration: Moved, heading: Heading, shard: number): Stream {
  const [first] = streamsTo(migration, heading, shard);
  invariant(first, 'every shard subscribes');
  return first;
}
