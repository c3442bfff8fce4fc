/** One task: `cutover doctor`: say what moves whose workflow is gone have left behind, and remove it when asked to. */
import { diagnose, removeLeftovers, type Diagnosis, type Finding } from '../../activities/leftovers.js';
import type { EngineContext } from '../../activities/context.js';
import { loadConfig, type ConfigFiles } from '../config/load.js';
import { Directory } from '../fleet/directory.js';
import { Fleet, loopbackOf } from '../fleet/fleet.js';
import { Connections } from '../postgres/connections.js';
import { temporalClient } from '../temporal/connection.js';
import { isRunning } from '../temporal/worker.js';

export interface DoctorOptions {
  readonly files: ConfigFiles;
  readonly remove: boolean;
  readonly temporalAddress?: string;
  readonly write: (text: string) => void;
}

/** 0: nothing is left over. 1: not everything could be looked into. 2: something is left over, or could not be removed. */
export type ExitCode = 0 | 1 | 2;

/** @throws CutoverError `configuration_invalid` */
export async function doctor(options: DoctorOptions): Promise<ExitCode> {
  const { context, close } = doctorContext(options);
  try {
    if (!options.remove) return report(options, await diagnose(context), []);
    const { after, failures } = await removeLeftovers(context);
    return report(options, after, failures);
  } finally {
    await close();
  }
}

function report({ write, remove }: DoctorOptions, seen: Diagnosis, failures: readonly string[]): ExitCode {
  for (const problem of seen.problems) write(`! ${problem}\n`);
  for (const failure of failures) write(`! not removed: ${failure}\n`);
  for (const finding of seen.findings) write(`${line(finding)}\n`);
  const left = seen.findings.filter(({ verdict }) => verdict === 'left over').length;
  if (left > 0) write(`${left.toString()} left over${remove ? '' : '; cutover doctor --remove takes them away'}\n`);
  else if (seen.problems.length === 0) write('nothing is left over\n');
  if (left > 0 || failures.length > 0) return 2;
  return seen.problems.length > 0 ? 1 : 0;
}

function line({ place, what, verdict, why }: Finding): string {
  return `${verdict.padEnd(9)}  ${place}: ${what} (${why})`;
}

/** What an engine has, without a worker: nothing here is started. */
function doctorContext({ files, temporalAddress }: DoctorOptions): {
  readonly context: EngineContext;
  readonly close: () => Promise<void>;
} {
  const loaded = loadConfig(files);
  const config =
    temporalAddress === undefined ? loaded : { ...loaded, temporal: { ...loaded.temporal, address: temporalAddress } };
  const { host, port } = config.general;
  const fallback = { name: 'local', host: loopbackOf(host), port };
  const fleet = new Fleet({ config: () => config, own: null, row: null, fallback });
  const connections = new Connections({ applicationName: 'cutover doctor' });
  let client: ReturnType<typeof temporalClient> | null = null;
  return {
    context: {
      ...{ config: () => config, directory: new Directory(() => config), connections, fleet },
      isRunning: async (workflowId) => isRunning(await (client ??= temporalClient(config.temporal)), workflowId),
      onStep: () => undefined,
    },
    close: async () => {
      await fleet.close();
      await connections.close();
      await (await client?.catch(() => null))?.connection.close();
    },
  };
}
