/** One task: make a fault, and undo it. */
import { childrenOf, signalProcess } from '../../src/dev/processes.js';
import type { Cluster } from '../../src/dev/embedded-postgres.js';
import { invariant } from '../../src/errors/invariant.js';
import { SESSION, type Fault } from './plan.js';
import { shardName, type FaultSystem } from './system.js';

export interface Injury {
  /** what was hit, in words */
  readonly hit: string;
  /** nodes whose clients may have to wait as long as it lasts */
  readonly nodes: readonly string[];
  heal(): Promise<void>;
}

/** Divides the choice among nodes from that among shards. */
const CHOICES_OF_A_NODE = 10;

/** @param stepProcess the process that takes the step */
export async function injure(system: FaultSystem, fault: Fault, stepProcess: string): Promise<Injury> {
  const others = system.nodes.filter((name) => name !== stepProcess);
  const other = chosen(others, fault.choice);
  const anyNode = chosen(system.nodes, fault.choice);
  // Each shard of the destination is hit apart.
  const shard = Math.floor(fault.choice / CHOICES_OF_A_NODE) % system.shards;
  const destination = system.placesOf('destination')[shard]?.cluster ?? system.destination;
  const its = shardName('destination', shard);
  switch (fault.victim) {
    case 'step process':
      return injureProcess(system, fault.kind, stepProcess);
    case 'other node':
      return injureProcess(system, fault.kind, other);
    case 'temporal':
      return injureTemporal(system, fault.kind);
    case 'source':
      return injureCluster(system, fault.kind, system.source, 'source');
    case 'destination':
      return injureCluster(system, fault.kind, destination, its);
    case SESSION:
      return injureSessions(fault.index % 2 === 1 ? destination : system.source);
    case 'node to source':
      return spoil(system, fault.kind, anyNode, 'source', [anyNode]);
    case 'node to destination':
      return spoil(system, fault.kind, anyNode, its, [anyNode]);
    case 'engine to node':
      return spoil(system, fault.kind, stepProcess, other, []);
  }
}

function chosen(names: readonly string[], choice: number): string {
  const name = names[choice % names.length];
  invariant(name, 'there is a node to choose');
  return name;
}

async function injureProcess(system: FaultSystem, kind: 'kill' | 'stop', name: string): Promise<Injury> {
  const victim = system.process(name);
  const nodes = system.nodes.filter((node) => node === name);
  if (kind === 'kill') {
    await victim.kill();
    return { hit: `process ${name} killed`, nodes, heal: () => victim.start() };
  }
  victim.signal('SIGSTOP');
  const heal = (): Promise<void> => {
    victim.signal('SIGCONT');
    return Promise.resolve();
  };
  return { hit: `process ${name} stopped`, nodes, heal };
}

async function injureTemporal(system: FaultSystem, kind: 'kill' | 'stop'): Promise<Injury> {
  const { temporalServer } = system;
  if (kind === 'kill') {
    await temporalServer.kill();
    return { hit: 'Temporal killed', nodes: [], heal: () => temporalServer.start() };
  }
  const { pid } = temporalServer;
  signalProcess(pid, 'SIGSTOP');
  const heal = (): Promise<void> => {
    signalProcess(pid, 'SIGCONT');
    return Promise.resolve();
  };
  return { hit: 'Temporal stopped', nodes: [], heal };
}

async function injureCluster(
  system: FaultSystem,
  kind: 'kill' | 'stop',
  cluster: Cluster,
  name: string,
): Promise<Injury> {
  const { nodes } = system;
  if (kind === 'kill') {
    await cluster.kill();
    return { hit: `${name} killed`, nodes, heal: () => cluster.start() };
  }
  const { pid } = cluster;
  // The postmaster first: it makes no new children while they are listed.
  signalProcess(pid, 'SIGSTOP');
  const family = [...childrenOf(pid), pid];
  for (const member of family) signalProcess(member, 'SIGSTOP');
  const heal = (): Promise<void> => {
    for (const member of family) signalProcess(member, 'SIGCONT');
    return Promise.resolve();
  };
  return { hit: `${name} stopped`, nodes, heal };
}

/** What the engine sends them waits in the server and is done late, after the nodes have decided. */
async function injureSessions(serving: Cluster): Promise<Injury> {
  const sessions = await serving.query<{ pid: number }>(
    'app',
    `SELECT pid FROM pg_stat_activity WHERE application_name = 'cutover engine' AND datname = 'app'`,
  );
  invariant(sessions.length > 0, 'the engine has sessions at the server that serves');
  for (const { pid } of sessions) signalProcess(pid, 'SIGSTOP');
  const heal = (): Promise<void> => {
    for (const { pid } of sessions) signalProcess(pid, 'SIGCONT');
    return Promise.resolve();
  };
  return {
    hit: `${sessions.length.toString()} sessions of the engine at the server that serves stopped`,
    nodes: [],
    heal,
  };
}

function spoil(
  system: FaultSystem,
  kind: 'blackhole' | 'half-open' | 'reset' | 'slow',
  from: string,
  to: string,
  nodes: readonly string[],
): Injury {
  const chaos = system.chaos(from, to);
  chaos.set(kind);
  const heal = (): Promise<void> => {
    chaos.set('calm');
    return Promise.resolve();
  };
  return { hit: `${kind} from ${from} to ${to}`, nodes, heal };
}
