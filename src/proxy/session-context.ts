/** One task: name what a client session needs of the proxy around it. */
import type { Socket } from 'node:net';
import type { Config } from '../config/config.js';
import type { ProxyHooks } from './contract.js';
import type { Gate } from './gate.js';
import type { Journal } from './journal.js';
import type { Logger } from './logger.js';
import type { Pipelining } from './pipelining/pipelining.js';
import type { Routes } from './routes.js';
import type { SessionSettings } from './settings.js';
import type { ShardRouters } from './shard-routers.js';
import type { StatementCache } from './statement-cache.js';
import type { UnreadClients } from './unread-clients.js';

/** What a login ends with. */
export interface LoggedInClient {
  readonly id: number;
  readonly secret: Buffer;
  readonly socket: Socket;
  readonly user: string;
  readonly database: string;
  /** settings of the startup packet */
  readonly settings: SessionSettings;
  /** what the client was told by ParameterStatus */
  readonly parameters: ReadonlyMap<string, string>;
  /** bytes that came after the login */
  readonly unread: Buffer;
}

export interface SessionContext {
  /** in force now */
  readonly config: Config;
  readonly routes: Routes;
  readonly routers: ShardRouters;
  readonly statements: StatementCache;
  readonly pipelining: Pipelining;
  readonly unread: UnreadClients;
  readonly hooks: ProxyHooks | undefined;
  readonly logger: Logger;
  readonly journal: Journal;
  /** longest wait at a closed gate */
  readonly gateWaitMs: number;
  gate(database: string): Gate;
  /** a drain waits for sessions with something on their server that no other has: until they have none they pass the gate */
  waitsForBound(database: string): boolean;
  /** the session with this id is over */
  forget(id: number): void;
}
