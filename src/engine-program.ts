/** One task: be the engine of a proxy in a process of its own, started by engine-process.ts, and end with it. */
import { Told } from './configured.js';
import type { ToEngine } from './engine-process.js';
import { keepWorker } from './keep-worker.js';
import { STANDARD_ERROR } from './line-writer.js';
import { ProgramLog } from './log.js';
import { serveWorker } from './serve-worker.js';

/** A worker that was told to stop has three seconds for what it does; a process that hangs is worth less than none. */
const END_MS = 5_000;

const stopping = new AbortController();

function stop(): void {
  stopping.abort();
  setTimeout(() => process.exit(1), END_MS).unref();
}

// A terminal and a service manager tell every process of a group; this one hears from its proxy when to end.
for (const signal of ['SIGINT', 'SIGHUP', 'SIGUSR2'] as const) process.on(signal, () => undefined);
process.on('SIGTERM', stop);
// Nobody would start it again, nor tell it of a switch.
process.on('disconnect', stop);

async function run({ config, row, host, port, logLevel }: Extract<ToEngine, { type: 'start' }>): Promise<void> {
  const log = new ProgramLog({ level: logLevel });
  log.apply(config.logging);
  const configured = new Told(config);
  process.on('message', (message: ToEngine) => {
    if (message.type !== 'configuration') return;
    log.apply(message.config.logging);
    configured.tell(message.config);
    if (message.reloaded) configured.directory.forget();
  });
  await keepWorker(() => serveWorker({ configured, row, host, port }), log.logger, stopping.signal);
  await STANDARD_ERROR.settled();
  // The workflow runtime keeps threads of its own.
  process.exit();
}

process.on('message', (message: ToEngine) => {
  if (message.type === 'start') void run(message);
  if (message.type === 'stop') stop();
});
