/**
 * One task: tell what a statement for the session, not for a table, does to a session whose server may be any shard's.
 *
 * `again`: it may be said again on another shard as long as nothing else was said in the transaction; `stays`: only where the
 * transaction is; a text: it is refused for this reason.
 */
import type { Route } from '../sharding/router-binding.js';

export type SessionEffect = 'again' | 'stays' | { readonly refused: string };

type SessionRoute = Extract<Route, { kind: 'session' }>;

const AGAIN = new Set(['TransactionStmt', 'VariableSetStmt', 'ConstraintsSetStmt']);
const STAYS = new Set(['FetchStmt', 'ClosePortalStmt', 'DeallocateStmt', 'DiscardStmt', 'UnlistenStmt']);
/** What changes the meaning of names, or may. */
const PATH = /search_path|\bschema\b|\brole\b|authorization|\breset\b|\bdiscard\b/i;

export function effectOf({ command }: SessionRoute, text: string): SessionEffect {
  if (AGAIN.has(command)) return 'again';
  if (STAYS.has(command)) return 'stays';
  if (command === 'SelectStmt') return PATH.test(text) ? { refused: 'search_path is set with SET only' } : 'stays';
  return { refused: `${command.replace(/Stmt$/, '').toUpperCase()} leaves something on one server only` };
}

/** True where names may mean something else until the transaction ends and the settings are known again. */
export function mayChangePath(text: string): boolean {
  return PATH.test(text);
}
