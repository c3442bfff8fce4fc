/** One task: SHOW NODES: what every node of the fleet says of every database, and which ones do not answer. */
import type { NodeAnswer } from '../../activities/nodes.js';
import { sideKey } from '../cutover/side.js';
import type { NodeState } from '../fleet/node.js';
import type { AdminResult } from '../proxy/contract.js';
import { bigint, numeric, table, text, type Column } from './table.js';

interface Row {
  readonly answer: NodeAnswer;
  readonly state: NodeState | null;
}

/** One row for each node and database; a node that does not answer has one row with the reason. */
export function showNodes(answers: readonly NodeAnswer[]): AdminResult {
  const rows = answers.flatMap((answer): Row[] =>
    answer.states.length === 0 ? [{ answer, state: null }] : answer.states.map((state) => ({ answer, state })),
  );
  const columns: readonly Column<Row>[] = [
    text('node', ({ answer }) => answer.node),
    text('address', ({ answer }) => `${answer.address.host}:${answer.address.port.toString()}`),
    text('state', stateOf),
    text('database', ({ state }) => state?.database ?? null),
    bigint('epoch', ({ state }) => state?.epochResolved ?? null),
    bigint('epoch_seen', ({ state }) => state?.epochSeen ?? null),
    text('serving', ({ state }) => (state?.serving ? sideKey(state.serving) : null)),
    text('held_by', ({ state }) => state?.gateReasons.join(', ') ?? null),
    text('files', ({ state }) => (state ? (state.filesServe ? 'name the side that serves' : 'to be saved') : null)),
    numeric('lag_ms', ({ answer }) => answer.roundTripMs, 1),
    text('fingerprint', ({ state }) => state?.configFingerprint ?? null),
    text('problem', ({ answer }) => answer.problem),
  ];
  return table(columns, rows);
}

function stateOf({ answer, state }: Row): string {
  if (answer.problem !== null) return 'unreachable';
  return state?.gateReasons.includes('cutover') === true ? 'paused' : 'serving';
}
