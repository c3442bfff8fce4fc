/** One task: the words for where the batches of a session go. */
import type { CutoverError } from '../errors/errors.js';
import { COORDINATOR } from './routes.js';
import type { SeveralPlan } from './several-plan.js';
import type { TransactionPlan } from './shard-transaction.js';

/** Where a batch goes; `more`: the rest of it must come first; `read`: the router must be read (again) first. */
export type Place =
  | { readonly kind: 'shard'; readonly shard: number }
  /** one statement that writes on several shards */
  | { readonly kind: 'several'; readonly plan: SeveralPlan }
  | { readonly kind: 'refused'; readonly error: CutoverError }
  | { readonly kind: 'more' }
  | { readonly kind: 'read' };

/** Where the next batch of an open transaction goes. */
export type Move =
  | { readonly kind: 'stay' }
  | { readonly kind: 'more' }
  /** the transaction is begun anew on another shard */
  | { readonly kind: 'anew'; readonly shard: number }
  /** it takes others beside the one where it is */
  | { readonly kind: 'several'; readonly plan: TransactionPlan };

export const STAY: Move = { kind: 'stay' };
export const MORE: Move = { kind: 'more' };

const PLACES = new Map<number, Place>();

/** One for all: it is asked for with each batch. */
export function placeOn(shard: number): Place {
  let place = PLACES.get(shard);
  if (place === undefined) PLACES.set(shard, (place = { kind: 'shard', shard }));
  return place;
}

/** As a client reads it. */
export function placeName(shard: number): string {
  return shard === COORDINATOR ? 'the coordinator' : `shard ${shard.toString()}`;
}
