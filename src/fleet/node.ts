/**
 * One task: a proxy process as the engine sees it, in process or over its admin database.
 *
 * Every call carries the epoch and may be repeated, late, or run twice at once (protocol.md, sections 1 and 4).
 */

import type { Side } from '../cutover/side.js';

export type { Side };

export interface PauseRequest {
  /** the name applications connect to */
  readonly database: string;
  /** the name of the other side */
  readonly peer: string;
  readonly epoch: number;
  readonly source: Side;
  readonly destination: Side;
  /** how long the node holds its clients without hearing from the engine */
  readonly leaseMs: number;
  /** bound of the wait for running transactions */
  readonly drainMs: number;
  readonly drainAction: 'abort' | 'cancel';
}

export interface PauseAnswer {
  readonly drained: boolean;
  readonly waitedMs: number;
  /** clients held at the gate when the drain ended */
  readonly clientsHeld: number;
  /** sentences: who still ran a transaction at the deadline */
  readonly holders: readonly string[];
}

export interface NodeEpochs {
  /** highest epoch this node has seen for the database */
  readonly epochSeen: number;
  /** highest epoch whose decision this node has acted on */
  readonly epochResolved: number;
}

export interface NodeState extends NodeEpochs {
  readonly node: string;
  readonly database: string;
  readonly serving: Side | null;
  readonly gateReasons: readonly string[];
  /** fingerprint of the configuration in force, without secrets */
  readonly configFingerprint: string;
  /** the configuration files on disk name the side that serves, so that a restart without the record would too */
  readonly filesServe: boolean;
}

export interface SwapRequest {
  readonly database: string;
  readonly peer: string;
  readonly epoch: number;
  /** the side that serves `database` from now on; set, never exchanged */
  readonly serving: Side;
  readonly saveConfig: boolean;
}

/** One worker of a row of `[[nodes]]`: `name` is the row's, or `row/1` where several share its port. */
export interface Member {
  readonly name: string;
  /** where this worker alone is reached, at the row's host */
  readonly port: number;
}

export interface FleetNode {
  readonly name: string;
  /** the workers that share this node's port, itself included */
  members(): Promise<readonly Member[]>;
  state(database: string): Promise<NodeState>;
  /** the same of every database the engine can reach */
  states(): Promise<readonly NodeState[]>;
  /** Ahead of the pause: warm pools on the other side and write the swapped files beside the live ones. */
  prepare(request: SwapRequest): Promise<void>;
  /** Writes the names in force into the files. */
  save(database: string): Promise<void>;
  pause(request: PauseRequest): Promise<PauseAnswer>;
  /** Extends the lease of a pause that is still held; false when the node has resolved or forgotten the epoch. */
  renew(database: string, epoch: number, leaseMs: number): Promise<boolean>;
  swap(request: SwapRequest): Promise<void>;
  /** Opens the gate of the cutover for the decided side. */
  resume(database: string, epoch: number, serving: Side): Promise<void>;
}
