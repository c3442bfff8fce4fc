/** One task: `cutover verify`: start a comparison of both sides, tell how far it is, and end as it ended. */
import { setTimeout as delay } from 'node:timers/promises';
import { WorkflowFailedError, type Client } from '@temporalio/client';
import { loadConfig, type ConfigFiles } from '../config/load.js';
import { resultSentence, type VerifyResult } from '../cutover/verification.js';
import { messageOf } from '../errors/errors.js';
import { temporalClient } from '../temporal/connection.js';
import { waitingFor } from '../temporal/waiting.js';

export interface VerifyOptions {
  readonly files: ConfigFiles;
  readonly source: string;
  readonly destination: string;
  readonly temporalAddress?: string;
  readonly write: (text: string) => void;
}

const PROGRESS_MS = 1_000;

/** 0: both sides are equal. 1: they differ, or could not be compared. */
export type ExitCode = 0 | 1;

/**
 * The same workflow as VERIFY; it goes on in the worker when this process ends.
 *
 * @throws CutoverError `configuration_invalid` | `temporal_unreachable`
 */
export async function verify(options: VerifyOptions): Promise<ExitCode> {
  const { files, source, destination, temporalAddress, write } = options;
  const { temporal } = loadConfig(files);
  const client = await temporalClient(
    temporalAddress === undefined ? temporal : { ...temporal, address: temporalAddress },
  );
  try {
    const workflowId = `verify-${source}-${destination}-${Date.now().toString(36)}`;
    const handle = await client.workflow.start('verify', {
      ...{ workflowId, taskQueue: temporal.taskQueue, args: [{ source, destination }] },
      staticSummary: `Verify ${source} and ${destination}`,
    });
    return await ended(client, workflowId, handle.result() as Promise<VerifyResult>, write);
  } finally {
    await client.connection.close();
  }
}

async function ended(
  client: Client,
  workflowId: string,
  result: Promise<VerifyResult>,
  write: (text: string) => void,
): Promise<ExitCode> {
  const telling = new AbortController();
  const told = tellProgress(client, workflowId, write, telling.signal);
  try {
    write(`${resultSentence(await result)}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof WorkflowFailedError)) throw error;
    write(`${messageOf(error.cause ?? error)}\n`);
    return 1;
  } finally {
    telling.abort();
    await told;
  }
}

/** A line whenever there is something new to say, until it is told to stop. */
async function tellProgress(
  client: Client,
  workflowId: string,
  write: (text: string) => void,
  stopped: AbortSignal,
): Promise<void> {
  for (let last = ''; !stopped.aborted;) {
    await delay(PROGRESS_MS, undefined, { signal: stopped }).catch(() => undefined);
    const progress = (await waitingFor(client, workflowId)) ?? last;
    if (progress !== last && !isOver(stopped)) write(`${progress}\n`);
    last = progress;
  }
}

/** Asked again after an await. */
const isOver = (signal: AbortSignal): boolean => signal.aborted;
