/** One task: take all figures of one process at one moment, as plain data that another process may be sent. */
import type { LocalNode } from '../fleet/local-node.js';
import type { NodeEpochs } from '../fleet/node.js';
import type { ProxyFigures, WatchedProxy } from '../proxy/contract.js';
import type { GateReason } from '../proxy/gate.js';

export const GATE_REASONS: readonly GateReason[] = ['cutover', 'pause', 'maintenance', 'recovery'];

export interface GateFigures {
  readonly database: string;
  readonly reasons: readonly string[];
  readonly clientsHeld: number;
  /** pauses of cutovers, rollbacks and rehearsals that have ended */
  readonly pauses: number;
  /** how long the last of them lasted; null: there was none */
  readonly lastPauseMs: number | null;
}

export interface ProcessFigures {
  readonly version: string;
  readonly startedAtMs: number;
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  /** lines of the log that were thrown away because nobody read them */
  readonly droppedLines: number;
}

/** What the layers above know of the program. */
export interface ProgramFacts {
  readonly version: string;
  readonly droppedLines: () => number;
}

export interface Figures extends ProxyFigures {
  readonly gates: readonly GateFigures[];
  readonly epochs: readonly (NodeEpochs & { readonly database: string })[];
  readonly statementsLimit: number;
  readonly process: ProcessFigures;
}

/** Nothing here waits, and nothing is asked of a server. */
export function figuresOf(proxy: WatchedProxy, node: LocalNode, program: ProgramFacts): Figures {
  const { config } = proxy;
  const names = [...new Set(config.databases.map(({ name }) => name))];
  return {
    ...proxy.figures(),
    gates: names.map((name) => gateFigures(proxy, name)),
    epochs: [...node.epochs].map(([database, { epochSeen, epochResolved }]) => ({
      database,
      epochSeen,
      epochResolved,
    })),
    statementsLimit: config.general.preparedStatementsLimit,
    process: processFigures(program),
  };
}

function gateFigures(proxy: WatchedProxy, database: string): GateFigures {
  const gate = proxy.gate(database);
  const holds = gate.holdsFor('cutover');
  return {
    database,
    reasons: gate.reasons,
    clientsHeld: gate.waitingCount,
    pauses: holds?.count ?? 0,
    lastPauseMs: holds?.lastMs ?? null,
  };
}

function processFigures({ version, droppedLines }: ProgramFacts): ProcessFigures {
  const { user, system } = process.cpuUsage();
  return {
    version,
    droppedLines: droppedLines(),
    startedAtMs: Date.now() - process.uptime() * 1_000,
    cpuSeconds: (user + system) / 1_000_000,
    residentBytes: process.memoryUsage.rss(),
  };
}
