/** One task: make of the route of a statement what a session needs to run it. */
import { REFUSAL_TEXTS } from '../sharding/router-refusals.js';
import type { Route } from '../sharding/router.js';
import type { CoordinatorReason, SessionHint, SessionStep } from '../sharding/statement-verdict.js';
import { COORDINATOR } from './routes.js';
import { effectOf } from './session-statement.js';

/**
 * What one text needs: a shard or the coordinator, any shard, to be refused; `again`: see session-statement.ts. `mixed`: it may also change
 * the session or the transaction, in a way that cannot be done again elsewhere.
 */
export type Need =
  /** `everywhere`: it only reads, and the coordinator answers it as well */
  | { readonly kind: 'shard'; readonly shard: number; readonly everywhere: boolean; readonly mixed: boolean }
  | { readonly kind: 'any'; readonly mixed: boolean }
  | { readonly kind: 'several'; readonly text: string; readonly write: SeveralRoute }
  | ControlNeed
  | { readonly kind: 'refused'; readonly reason: string; readonly unknown: boolean };

export interface ControlNeed {
  readonly kind: 'again';
  readonly text: string;
  readonly hints: readonly SessionHint[];
  readonly steps: readonly SessionStep[];
  /** statements */
  readonly count: number;
}

export const ANYWHERE: Need = { kind: 'any', mixed: false };

/** Of a statement for one shard that says nothing of its session. @param everywhere it only reads, and the coordinator answers it as well */
export function needOfShard(shard: number, everywhere: boolean): Need {
  return { kind: 'shard', shard, everywhere, mixed: false };
}

export function refused(reason: string, unknown = false): Need {
  return { kind: 'refused', reason, unknown };
}

/** What the statements of one text need together; those for tables have been combined before. */
export function both(one: Need, other: Need): Need {
  if (one.kind === 'refused' || one.kind === 'shard') return other.kind === 'refused' ? other : one;
  if (one.kind === 'again' && other.kind === 'again') {
    const [hints, steps] = [
      [...one.hints, ...other.hints],
      [...one.steps, ...other.steps],
    ];
    return { ...one, hints, steps, count: one.count + other.count };
  }
  return other.kind === 'again' ? one : other;
}

export function needOfSession(route: Extract<Route, { kind: 'session' }>, text: string): Need {
  const effect = effectOf(route, text);
  const { hint, step } = route;
  if (effect === 'again')
    return { kind: 'again', text, hints: hint === null ? [] : [hint], steps: step === null ? [] : [step], count: 1 };
  // What set_config sets is not followed.
  return effect === 'stays' ? { kind: 'any', mixed: step === 'set' } : refused(effect.refused);
}

export type SeveralRoute = Extract<Route, { kind: 'several' | 'rows' | 'every' | 'copy' | 'moves-key' }>;

export const NOT_ALONE =
  'it writes on several shards beside other statements, which is not implemented; send it by itself';
export const CONTROL_NOT_ALONE =
  'the transaction is on several shards, to all of which this is said; send it by itself';

export function needOfRoute(route: Route, text: string): Need {
  switch (route.kind) {
    case 'shard':
      return needOfShard(route.shard, !route.write);
    case 'any':
      return route.fixed ? needOfShard(0, false) : ANYWHERE;
    case 'refused':
      return refused(REFUSAL_TEXTS[route.reason], route.reason.startsWith(UNKNOWN));
    case 'coordinator':
      return { kind: 'shard', shard: COORDINATOR, everywhere: true, mixed: !ONLY_READS.has(route.reason) };
    case 'every':
      if (route.ddl && !route.transactional)
        return refused('it changes the schema and cannot run inside a transaction, so not on all shards or on none');
      return { kind: 'several', text, write: route };
    case 'several':
    case 'rows':
    case 'copy':
    case 'moves-key':
      return { kind: 'several', text, write: route };
    case 'session':
      return ANYWHERE;
  }
}

/** Why the coordinator answers what calls nothing that could change the session on it. */
const ONLY_READS: ReadonlySet<CoordinatorReason> = new Set(['unpinned', 'several-shards', 'view', 'join-alias']);

/** Reasons that another reading of the catalogue may remove. */
export const UNKNOWN = 'unknown-';
