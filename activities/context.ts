/** One task: what the activities may reach, handed to them by the process that runs the worker. */
import type { Config } from '../src/config/config.js';
import type { EpochPlan } from '../src/cutover/contract.js';
import type { Step } from '../src/cutover/epoch.js';
import type { Directory } from '../src/fleet/directory.js';
import type { Fleet } from '../src/fleet/fleet.js';
import type { Side } from '../src/cutover/side.js';
import type { Connection } from '../src/postgres/connection.js';
import type { Connections } from '../src/postgres/connections.js';

export interface EngineContext {
  config(): Config;
  readonly directory: Directory;
  readonly connections: Connections;
  readonly fleet: Pick<Fleet, 'look' | 'addresses' | 'nodes'>;
  /** whether a workflow with this id runs now */
  isRunning(workflowId: string): Promise<boolean>;
  /** told at the beginning of each of the eight steps, which waits for the answer; faults are injected here in tests */
  onStep(plan: EpochPlan, step: Step): void | Promise<void>;
}

/** The engine's connection for its own statements to the database a side is, whatever name it has today. */
export async function connectionTo(context: EngineContext, side: Side): Promise<Connection> {
  return context.connections.get(await context.directory.endpointOf(side), 'record');
}
