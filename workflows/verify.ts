/** One task: VERIFY: every table compared on both sides while writes go on; a difference is the failure of the task. */
import { CancellationScope, isCancellation, setHandler } from '@temporalio/workflow';
import type { Migration, MoveRequest } from '../src/cutover/contract.js';
import { isClean, resultSentence, type VerifyResult } from '../src/cutover/verification.js';
import { lengthy, route, short } from './activities.js';
import { Journal } from './journal.js';
import { checked, stopSignal } from './messages.js';
import { asSentence, refusal, refuseOtherMove } from './refusal.js';

export async function verify(input: MoveRequest): Promise<VerifyResult> {
  const request = checked(input, 'verify');
  const journal = new Journal('verify', request.source, request.destination);
  const comparing = new CancellationScope();
  setHandler(stopSignal, () => {
    comparing.cancel();
  });
  let migration: Migration | null = null;
  try {
    const situation = await short('See which side serves and whether streams run').assessSituation(request);
    refuseOtherMove(request, situation);
    if (!situation.migration || !situation.streams)
      throw refusal(
        `no streams run between "${request.source}" and "${request.destination}": nothing says that they are equal`,
        'streams_missing',
      );
    const found = situation.migration;
    migration = found;
    journal.note('PhaseEntered', { phase: 'comparing' });
    await journal.write(found);
    const result = await comparing.run(() => lengthy(`Compare every table ${route(found)}`).verifyTables(found));
    journal.note('TablesVerified', { ...result });
    const sentence = resultSentence(result);
    if (!isClean(result)) throw refusal(sentence, 'verify_differs');
    journal.note('TaskFinished', { reason: sentence });
    await journal.write(found);
    return result;
  } catch (error) {
    const stopped = comparing.consideredCancelled && isCancellation(error);
    journal.failed(stopped ? refusal('stopped by an operator', 'verify_stopped') : error);
    const known = migration;
    if (known) await CancellationScope.nonCancellable(() => journal.write(known));
    else await journal.writeWhereKept(request);
    throw stopped ? refusal('stopped by an operator', 'verify_stopped') : asSentence(error);
  }
}
