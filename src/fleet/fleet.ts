/**
 * One task: know every node of the fleet, and reach each of them.
 *
 * A row of `[[nodes]]` is a process that listens; several workers may share its port, and each of them is a node of its own.
 * So every row is asked for its members. A process without rows knows only itself and the workers beside it.
 */
import type { Config, NodeEntry } from '../config/config.js';
import { PREFER_TLS } from '../config/tls.js';
import type { NodeAddress } from '../cutover/contract.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import type { Endpoint } from '../postgres/endpoint.js';
import type { AdminResult } from '../proxy/contract.js';
import type { FleetNode, Member } from './node.js';
import { RemoteNode } from './remote-node.js';

export interface FleetOptions {
  config(): Config;
  /** the node of this process; null in a process without a proxy */
  readonly own: FleetNode | null;
  /** the row this process belongs to; null where there are no rows */
  readonly row: string | null;
  /** where a process without rows and without a proxy finds the one there is */
  readonly fallback?: NodeEntry;
}

/** A row as it answered, or why it did not. */
export type RowAnswer =
  | { readonly entry: NodeEntry; readonly members: readonly NodeAddress[] }
  | { readonly entry: NodeEntry; readonly problem: CutoverError };

export class Fleet {
  readonly #options: FleetOptions;
  readonly #remotes = new Map<string, RemoteNode>();

  constructor(options: FleetOptions) {
    this.#options = options;
  }

  /** Asks every row for its members, in the order of their names; a row that does not answer is one answer too. */
  async look(): Promise<readonly RowAnswer[]> {
    const { own } = this.#options;
    // Its own row too is asked where it leads: the others, and `cutover worker`, find this process nowhere else.
    const alone = this.#options.config().nodes.length === 0;
    return Promise.all(this.#rows().map((entry) => this.#ask(entry, (alone ? own : null) ?? this.#remote(entry))));
  }

  #rows(): readonly NodeEntry[] {
    const { own, fallback } = this.#options;
    const { general, nodes } = this.#options.config();
    if (nodes.length > 0) return [...nodes].sort((a, b) => (a.name < b.name ? -1 : 1));
    if (own) return [{ name: rowOf(own.name), host: loopbackOf(general.host), port: general.port }];
    return fallback ? [fallback] : [];
  }

  async #ask(entry: NodeEntry, node: FleetNode): Promise<RowAnswer> {
    try {
      const members = await node.members();
      const stranger = members.find(({ name }) => name !== entry.name && !name.startsWith(`${entry.name}/`));
      if (members.length === 0 || stranger)
        throw new CutoverError('node_stranger', {
          node: entry.name,
          address: `${entry.host}:${entry.port.toString()}`,
          other: stranger?.name ?? 'nothing',
        });
      return { entry, members: members.map((member: Member) => ({ ...member, host: entry.host })) };
    } catch (error) {
      const problem =
        error instanceof CutoverError
          ? error
          : new CutoverError('node_unreachable', { node: entry.name, problem: messageOf(error) });
      return { entry, problem };
    }
  }

  /** Where every node is reached now. @throws CutoverError `node_unreachable` | `node_stranger` of the first row that fails */
  async addresses(): Promise<readonly NodeAddress[]> {
    const answers = await this.look();
    for (const answer of answers) if ('problem' in answer) throw answer.problem;
    return answers.flatMap((answer) => ('members' in answer ? answer.members : []));
  }

  /** The nodes at these addresses: this process's own, or one that is steered over its admin database. Connects nowhere. */
  nodes(addresses: readonly NodeAddress[]): readonly FleetNode[] {
    const { own } = this.#options;
    return addresses.map((address) => (own?.name === address.name ? own : this.#remote(address)));
  }

  /** One command on every worker that shares this process's port, but not on this one. */
  async tellSiblings(statement: string): Promise<readonly AdminResult[]> {
    const { own, row } = this.#options;
    if (!own) return [];
    const host = loopbackOf(this.#options.config().general.host);
    const siblings = (await own.members()).filter(({ name }) => name !== own.name);
    invariant(siblings.length === 0 || row !== null || own.name.includes('/'), 'siblings have names of their own');
    return Promise.all(siblings.map(({ name, port }) => this.#remote({ name, host, port }).execute(statement)));
  }

  #remote(entry: NodeEntry): RemoteNode {
    const { name, host, port } = entry;
    const key = `${name} ${host}:${port.toString()}`;
    let remote = this.#remotes.get(key);
    if (!remote) {
      invariant(this.#remotes.size < REMOTES_MAX, 'a fleet has a bounded number of addresses');
      remote = new RemoteNode(name, () => this.#endpointAt(host, port));
      this.#remotes.set(key, remote);
    }
    return remote;
  }

  /** With the password of now: a RELOAD may have changed it, and what is open already lives on. */
  #endpointAt(host: string, port: number): Endpoint {
    const { admin, tls } = this.#options.config();
    const { name: database, user, password } = admin;
    // The rows of one fleet have the same settings: where this one offers TLS, the others do.
    return { host, port, database, user, password, ...(tls.clients === null ? {} : { tls: PREFER_TLS }) };
  }

  async close(): Promise<void> {
    await Promise.all([...this.#remotes.values()].map((remote) => remote.close()));
    this.#remotes.clear();
  }
}

/** `local` of `local/2`. */
function rowOf(member: string): string {
  return member.split('/')[0] ?? member;
}

/** Workers that are started again get new addresses; this many in the life of one process are a mistake. */
const REMOTES_MAX = 10_000;

/** Where a process that listens everywhere reaches itself. */
export function loopbackOf(host: string): string {
  return host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
}
