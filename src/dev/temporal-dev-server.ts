/** One task: run a Temporal dev server on ports of its own for the demo, the tests and `serve --dev`. */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Connection } from '@temporalio/client';
import { CutoverError } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { release, removeAtEnd, watch } from './guardian.js';
import { freePorts, LOOPBACK } from './ports.js';
import { holdsWithin, signalProcess } from './processes.js';
import { temporalBinary } from './temporal-binary.js';

export interface TemporalOptions {
  /** SQLite file that keeps workflows over a restart; absent: they are gone when the server stops */
  readonly databaseFile?: string;
  /** serve the web page; default false */
  readonly ui?: boolean;
  /** is told, in one sentence each, what takes long */
  readonly report?: (sentence: string) => void;
}

interface Ports {
  readonly grpc: number;
  readonly ui: number;
  readonly http: number;
  readonly metrics: number;
}

const NAMESPACE = 'default';
const START_DEADLINE_MS = 60_000;
const STOP_DEADLINE_MS = 15_000;
const CONNECT_TIMEOUT_MS = 1_000;
const POLL_MS = 25;
const LOG_TAIL_CHARACTERS = 2_000;

/** One Temporal dev server. It ends with this process, however that ends. */
export class TemporalDevServer {
  readonly namespace = NAMESPACE;
  /** host:port of the gRPC service */
  readonly address: string;
  /** URL of the web page; undefined when it was not asked for */
  readonly uiAddress: string | undefined;
  readonly #program: string;
  readonly #folder: string;
  readonly #arguments: readonly string[];
  #child: ChildProcess | undefined;

  /** Use {@link startTemporal}. */
  constructor(program: string, folder: string, ports: Ports, options: TemporalOptions) {
    this.address = `${LOOPBACK}:${ports.grpc.toString()}`;
    this.uiAddress = options.ui ? `http://${LOOPBACK}:${ports.ui.toString()}` : undefined;
    this.#program = program;
    this.#folder = folder;
    this.#arguments = serverArguments(ports, options);
  }

  /** process id of the server; only while it runs */
  get pid(): number {
    invariant(this.#child?.pid !== undefined, 'the Temporal server runs');
    return this.#child.pid;
  }

  /** Starts on the same ports and database file, and returns once workflows can be started. Nothing happens when it runs. */
  async start(): Promise<void> {
    if (this.#child !== undefined) return;
    const log = openSync(join(this.#folder, 'temporal.log'), 'a');
    const child = spawn(this.#program, this.#arguments, { stdio: ['ignore', log, log], detached: true });
    closeSync(log);
    child.once('error', () => (this.#child = undefined));
    if (child.pid === undefined) throw this.#unavailable('the program could not be run');
    const pid = child.pid;
    watch({ pid, signal: 'SIGTERM' });
    child.once('exit', () => {
      release(pid);
      if (this.#child === child) this.#child = undefined;
    });
    child.unref();
    this.#child = child;
    await this.#untilReady();
  }

  /** Stops the server; may be called again. */
  async stop(): Promise<void> {
    await this.#end('SIGTERM');
  }

  /** The crash: SIGKILL, and waits for the end; may be called again. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const pid = this.#child?.pid;
    if (pid === undefined) return;
    signalProcess(pid, signal);
    signalProcess(pid, 'SIGCONT');
    if (await holdsWithin(() => this.#child === undefined, STOP_DEADLINE_MS)) return;
    signalProcess(pid, 'SIGKILL');
    const ended = await holdsWithin(() => this.#child === undefined, STOP_DEADLINE_MS);
    invariant(ended, 'SIGKILL ends a process');
  }

  async #untilReady(): Promise<void> {
    const end = performance.now() + START_DEADLINE_MS;
    while (this.#child !== undefined && performance.now() < end) {
      if (await answers(this.address)) return;
      await new Promise((go) => setTimeout(go, POLL_MS));
    }
    await this.kill();
    const log = readFileSync(join(this.#folder, 'temporal.log'), 'utf8').slice(-LOG_TAIL_CHARACTERS);
    throw this.#unavailable(`it did not start: ${log}`);
  }

  #unavailable(problem: string): CutoverError {
    const remedy = `Run \`${this.#program} server start-dev\` by hand to see why.`;
    return new CutoverError('dev_server_unavailable', { server: 'Temporal', problem, remedy });
  }
}

/**
 * Starts a Temporal dev server on free ports of 127.0.0.1, never 7233 or 8233, and returns once it answers.
 *
 * Takes about a second once the `temporal` program is on the machine; getting it may take minutes, once.
 *
 * @throws CutoverError `dev_server_unavailable`
 */
export async function startTemporal(options: TemporalOptions = {}): Promise<TemporalDevServer> {
  const program = await temporalBinary(options.report);
  const folder = mkdtempSync(join(tmpdir(), 'cutover-temporal-'));
  removeAtEnd(folder);
  const [grpc, ui, http, metrics] = await freePorts(4);
  invariant(grpc && ui && http && metrics, 'freePorts(4) gives four ports');
  const server = new TemporalDevServer(program, folder, { grpc, ui, http, metrics }, options);
  try {
    await server.start();
    return server;
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
}

function serverArguments(ports: Ports, options: TemporalOptions): readonly string[] {
  const port = (name: string, value: number): readonly string[] => [`--${name}`, value.toString()];
  return [
    ...['server', 'start-dev', '--ip', LOOPBACK, '--namespace', NAMESPACE, '--log-level', 'error'],
    ...[...port('port', ports.grpc), ...port('http-port', ports.http), ...port('metrics-port', ports.metrics)],
    ...(options.ui ? ['--ui-ip', LOOPBACK, ...port('ui-port', ports.ui)] : ['--headless']),
    ...(options.databaseFile === undefined ? [] : ['--db-filename', resolve(options.databaseFile)]),
  ];
}

/** True once the server knows its namespace: the port opens earlier than that. */
async function answers(address: string): Promise<boolean> {
  let connection: Connection | undefined;
  try {
    connection = await Connection.connect({ address, connectTimeout: CONNECT_TIMEOUT_MS });
    await connection.workflowService.describeNamespace({ namespace: NAMESPACE });
    return true;
  } catch {
    return false;
  } finally {
    await connection?.close().catch(() => undefined);
  }
}
