/** One task: be the worker that a test kills: in a process of its own, dead at the step a file names. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { invariant } from '../../src/errors/invariant.js';
import { byFiles } from '../../src/configured.js';
import { SILENT } from '../../src/proxy/logger.js';
import { serveWorker } from '../../src/serve-worker.js';

const READY = 'the worker runs';

const [, , config, users, temporalAddress, fault, port] = process.argv;
invariant(config && users && temporalAddress && fault && port, 'the test names files, Temporal, a file and a port');

const worker = await serveWorker({
  configured: byFiles({ files: { config, users }, temporalAddress, logger: SILENT }),
  port: Number(port),
  onStep: (_, step) => {
    if (!existsSync(fault) || readFileSync(fault, 'utf8') !== step) return;
    // Once: the worker after this one must come further.
    rmSync(fault);
    process.kill(process.pid, 'SIGKILL');
  },
});
console.log(READY);
await worker.ended;
