/** One task: connect to Temporal as its environment says (`@temporalio/envconfig`), or as `[temporal]` in pgdog.toml says. */
import { Client, Connection, isGrpcServiceError, ServiceError } from '@temporalio/client';
import { loadClientConnectConfig } from '@temporalio/envconfig';
import { NativeConnection } from '@temporalio/worker';
import type { TemporalConfig } from '../config/config.js';
import { CutoverError, messageOf } from '../errors/errors.js';

const CONNECT_TIMEOUT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 2_000;
const DEFAULT_ADDRESS = 'localhost:7233';

interface Target {
  readonly options: ReturnType<typeof loadClientConnectConfig>['connectionOptions'];
  readonly address: string;
  readonly namespace: string;
}

/**
 * The configuration file wins over the environment: it is what the operator wrote for this program.
 *
 * @throws CutoverError `temporal_environment_wrong`
 */
function targetOf(config: TemporalConfig): Target {
  const { connectionOptions, namespace } = environment();
  const address = config.address ?? connectionOptions.address ?? DEFAULT_ADDRESS;
  return {
    options: { ...connectionOptions, address },
    address,
    namespace: config.namespace ?? namespace ?? 'default',
  };
}

/** The variables and the profile file that every Temporal program reads (https://docs.temporal.io/develop/environment-configuration). */
function environment(): ReturnType<typeof loadClientConnectConfig> {
  try {
    return loadClientConnectConfig();
  } catch (error) {
    throw new CutoverError('temporal_environment_wrong', { problem: messageOf(error) }, { cause: error });
  }
}

/** @throws CutoverError `temporal_unreachable`, `temporal_environment_wrong` */
export async function temporalClient(config: TemporalConfig): Promise<Client> {
  const target = targetOf(config);
  try {
    const connection = await Connection.connect({ ...target.options, connectTimeout: CONNECT_TIMEOUT_MS });
    return new Client({ connection, namespace: target.namespace });
  } catch (error) {
    throw new CutoverError('temporal_unreachable', { address: target.address, problem: messageOf(error) });
  }
}

/**
 * Resolves when Temporal answers now: that a connection was made once says nothing of that.
 *
 * @throws CutoverError `temporal_unreachable` within 2 s
 */
export async function requireAnswer(client: Client, config: TemporalConfig): Promise<void> {
  const { connection, workflowService } = client;
  try {
    await connection.withDeadline(Date.now() + ANSWER_TIMEOUT_MS, () => workflowService.getSystemInfo({}));
  } catch (error) {
    throw new CutoverError('temporal_unreachable', { address: targetOf(config).address, problem: messageOf(error) });
  }
}

/** https://grpc.github.io/grpc/core/md_doc_statuscodes.html: CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE */
const WITHOUT_ANSWER: readonly number[] = [1, 4, 14];

/**
 * One call to Temporal within a deadline. What Temporal answers, a refusal included, is passed on.
 *
 * @throws CutoverError `temporal_unreachable` when it does not answer: it may have died after the client was asked for
 */
export async function answered<T>(
  client: Client,
  config: TemporalConfig,
  timeoutMs: number,
  call: () => Promise<T>,
): Promise<T> {
  try {
    return await client.withDeadline(Date.now() + timeoutMs, call);
  } catch (error) {
    if (!isWithoutAnswer(error)) throw error;
    const problem = messageOf(error instanceof Error && error.cause instanceof Error ? error.cause : error);
    throw new CutoverError('temporal_unreachable', { address: targetOf(config).address, problem });
  }
}

function isWithoutAnswer(error: unknown): boolean {
  for (let [current, depth] = [error, 0]; current instanceof Error && depth < 10; current = current.cause, depth++)
    if (isGrpcServiceError(current)) return WITHOUT_ANSWER.includes(current.code);
  // A channel that was shut down is no answer of the server.
  return error instanceof ServiceError;
}

/** @throws CutoverError `temporal_unreachable`, `temporal_environment_wrong` */
export async function temporalWorkerConnection(
  config: TemporalConfig,
): Promise<{ connection: NativeConnection; namespace: string }> {
  const target = targetOf(config);
  try {
    return { connection: await NativeConnection.connect(target.options), namespace: target.namespace };
  } catch (error) {
    throw new CutoverError('temporal_unreachable', { address: target.address, problem: messageOf(error) });
  }
}
