/** One task: manual routing: a comment `pgdog_shard: 1` or `pgdog_sharding_key: x` at a statement's start or end, and SET. */
import { shardOf } from './hash.js';
import type { Route } from './router-binding.js';
import type { ShardingScheme, TableRule } from './scheme.js';
import type { SessionHint, Verdict } from './statement-verdict.js';

/** What a comment or the session's settings ask for. */
export type Hint = Pick<SessionHint, 'name'> & { readonly value: string };

const COMMENT = String.raw`\/\*\s*pgdog_(shard|sharding_key)\s*:\s*((?:[^*]|\*(?!\/))*?)\s*\*\/`;
const AT_START = new RegExp(String.raw`^\s*${COMMENT}`);
/** Long texts are searched at their end only; a hint is short. */
const AT_END = new RegExp(String.raw`${COMMENT}[\s;]*$`);
const END_LENGTH = 512;

/** The hint of a comment; null where there is none. A comment anywhere else is only a comment. */
export function commentHint(sql: string): Hint | null {
  if (!sql.includes('pgdog_')) return null;
  const [, name, value] = AT_START.exec(sql) ?? AT_END.exec(sql.slice(-END_LENGTH)) ?? [];
  if ((name !== 'shard' && name !== 'sharding_key') || value === undefined) return null;
  return { name, value: value.replace(/^'(.*)'$/s, '$1') };
}

/**
 * The route that a hint makes of a statement's own. What must run on every shard, and rows whose key leads elsewhere, are refused
 * rather than put where nobody finds them; reads and changes of rows go where the hint says.
 */
export function hintedRoute(hint: Hint, verdict: Verdict, route: Route, scheme: ShardingScheme): Route {
  if (route.kind === 'session') return route;
  const shard = hintedShard(hint, verdict, scheme);
  const refusal: Route = { kind: 'refused', reason: 'manual-shard' };
  if (shard === null) return refusal;
  switch (route.kind) {
    case 'shard':
      return route.write && route.shard !== shard ? refusal : { ...route, shard };
    case 'several':
      return { kind: 'shard', shard, write: true };
    case 'any':
    case 'coordinator':
      return { kind: 'shard', shard, write: false };
    case 'refused':
      return route.reason === 'row-lock' || route.reason === 'physical'
        ? { kind: 'shard', shard, write: false }
        : route;
    case 'every':
    case 'rows':
    case 'copy':
    case 'moves-key':
      return refusal;
  }
}

function hintedShard(hint: Hint, verdict: Verdict, scheme: ShardingScheme): number | null {
  if (hint.name === 'sharding_key') {
    const rule = ruleOfHint(verdict, scheme);
    return rule === null ? null : shardOf(rule, hint.value, scheme.shards);
  }
  const shard = /^\d{1,4}$/.test(hint.value) ? Number(hint.value) : scheme.shards;
  return shard < scheme.shards ? shard : null;
}

/** A key alone does not say whose it is: the statement's tables do, else the scheme where all of its tables agree. */
function ruleOfHint(verdict: Verdict, scheme: ShardingScheme): Pick<TableRule, 'type' | 'mapping'> | null {
  if (verdict.kind === 'rows') return verdict.rule;
  const target = verdict.kind === 'keys' ? verdict.targets[0] : undefined;
  if (target !== undefined) return target.rule;
  const [first, ...more] = scheme.tables;
  if (first === undefined) return null;
  const sameText = JSON.stringify([first.type, first.mapping], numbersAsText);
  const agree = more.every(({ type, mapping }) => JSON.stringify([type, mapping], numbersAsText) === sameText);
  return agree ? first : null;
}

function numbersAsText(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
