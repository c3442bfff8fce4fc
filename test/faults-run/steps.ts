/** One task: hear of every step of every process before it is taken, and let it wait while a fault is made. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Step } from '../../src/cutover/epoch.js';
import { LOOPBACK } from '../../src/dev/ports.js';

export interface StepReport {
  /** the process that takes the step */
  readonly process: string;
  readonly epoch: number;
  readonly step: Step;
}

export class StepReports {
  readonly #server: Server;
  /** told of each step, which waits for it; set by whoever makes the next fault */
  onStep: (report: StepReport) => Promise<void> = () => Promise.resolve();

  private constructor(server: Server) {
    this.#server = server;
    server.on('request', (request, response) => {
      const [, process = '', epoch = '', step = ''] = (request.url ?? '').split('/');
      const answer = (): void => {
        response.end();
      };
      // A process that was killed in its step does not read the answer.
      response.on('error', () => undefined);
      this.onStep({ process, epoch: Number(epoch), step: step as Step }).then(answer, answer);
    });
  }

  static async listen(): Promise<StepReports> {
    const server = createServer();
    server.listen(0, LOOPBACK);
    await once(server, 'listening');
    return new StepReports(server);
  }

  get url(): string {
    return `http://${LOOPBACK}:${(this.#server.address() as AddressInfo).port.toString()}`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}
