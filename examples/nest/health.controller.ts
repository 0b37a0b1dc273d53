import { Controller, Get, Inject, ServiceUnavailableException } from '@nestjs/common';
import { OUTBOX_HEALTH, type OutboxHealth } from 'messenger-outbox/nest';

@Controller('health')
export class HealthController {
  constructor(@Inject(OUTBOX_HEALTH) private readonly outbox: OutboxHealth) {}

  @Get()
  check(): object {
    const { ok, status, failures } = this.outbox.now();
    // Whoever asks learns which subscribers failed; why is in the log.
    const report = { status, failed: Object.keys(failures) };
    if (!ok) throw new ServiceUnavailableException(report);
    return report;
  }
}
