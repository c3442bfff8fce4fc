/** One task: tell which row of `[[nodes]]` this process is. */
import { networkInterfaces } from 'node:os';
import type { Config, NodeEntry } from '../config/config.js';
import { CutoverError } from '../errors/errors.js';

/**
 * The row named on the command line, else the only one with this process's port at an address of this machine.
 *
 * @returns null where there are no rows: the proxy is alone
 * @throws CutoverError `node_unnamed`
 */
export function ownRow(config: Config, given: string | undefined): string | null {
  const { nodes, general } = config;
  const names = nodes.map((node) => node.name).join(', ') || 'none';
  if (given !== undefined) {
    if (nodes.some((node) => node.name === given)) return given;
    throw new CutoverError('node_unnamed', { problem: `there is no node "${given}"`, nodes: names });
  }
  if (nodes.length === 0) return null;
  const here = nodes.filter((node) => node.port === general.port && isHere(node, general.host));
  const [only, ...others] = here;
  if (only && others.length === 0) return only.name;
  const problem = only
    ? 'more than one node could be this process'
    : 'none of the nodes has the address of this process';
  throw new CutoverError('node_unnamed', { problem, nodes: names });
}

/**
 * The row this process goes by must stay among those of a configuration that is loaded again: the other nodes would switch without it.
 * Nothing is asked of a configuration without rows.
 *
 * @param started the row of the start; null where there were none
 * @throws CutoverError `node_unnamed`
 */
export function expectSameRow(config: Config, given: string | undefined, started: string | null): void {
  if (config.nodes.length === 0) return;
  const now = ownRow(config, given);
  if (now === started) return;
  const before = started === null ? 'alone, without rows' : `as "${started}"`;
  throw new CutoverError('node_unnamed', {
    problem: `it was started ${before}, and would have to be started again as "${now ?? ''}"`,
    nodes: config.nodes.map((node) => node.name).join(', '),
  });
}

function isHere(node: NodeEntry, listenHost: string): boolean {
  if (node.host === listenHost || node.host === 'localhost') return true;
  return Object.values(networkInterfaces()).some((list) => list?.some((own) => own.address === node.host) === true);
}
