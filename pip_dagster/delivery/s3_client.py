"""S3Objects in S3 by boto3: conditional writes, and what errors mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

from pip_dagster.delivery.target import DeliveryError

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
# Of S3 and stores like it: errors that another attempt may not meet.
_PASSING = frozenset({"SlowDown", "Throttling", "RequestTimeout", "InternalError", "ServiceUnavailable", "500", "503"})
_LOST_RACE = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})


class LostRaceError(Exception):
    """Another process replaced the object since it was read."""


class S3Objects:
    """The objects under one place of a bucket, `s3://bucket/path`."""

    def __init__(self, place: str, where: str, timeout: float) -> None:
        """Find the credentials and the server as every AWS client does; nothing is requested yet."""
        from botocore.config import Config

        self.place, self.where = place.rstrip("/"), where
        self._bucket, _, path = self.place.removeprefix("s3://").partition("/")
        self._prefix = f"{path}/" if path else ""
        self.server = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
        config = Config(
            connect_timeout=timeout,
            read_timeout=timeout,
            retries={"total_max_attempts": 1},  # the outbox retries
            s3={"addressing_style": "path" if self.server else "auto"},
            # Other stores refuse the newer check sums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        with self._of_s3():
            self._client: Any = _session().client(
                "s3", endpoint_url=self.server, region_name=region or "us-east-1", config=config
            )

    def read(self, name: str) -> tuple[str, str] | None:
        """The text of an object and its entity tag; None if there is none."""
        with self._of_s3():
            try:
                found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
                with found["Body"] as body:
                    return body.read().decode(), found["ETag"]
            except self._client.exceptions.ClientError as error:
                if _code(error) in _ABSENT:
                    return None
                raise

    def replace(self, name: str, text: str, etag: str | None) -> None:
        """Write an object, if it is still the one of this entity tag, or absent for None.

        Raises:
            LostRaceError: it is not.
        """
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        with self._of_s3():
            try:
                self._client.put_object(
                    **condition,
                    Bucket=self._bucket,
                    Key=self._prefix + name,
                    Body=text.encode(),
                    ContentType="application/json",
                )
            except self._client.exceptions.ClientError as error:
                if _code(error) in _LOST_RACE or (etag and _code(error) in _ABSENT):
                    raise LostRaceError from None
                raise

    def touch(self, name: str) -> None:
        """Write an empty object."""
        with self._of_s3():
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=b"")

    def upload(self, file: Path, name: str) -> None:
        """Write an object of a file, in parts if it is large."""
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(use_threads=False)  # threads would outlive an interrupt
        with self._of_s3():
            self._client.upload_file(str(file), self._bucket, self._prefix + name, Config=config)

    def download(self, name: str, file: Path) -> None:
        """Read an object into a file."""
        from boto3.s3.transfer import TransferConfig

        with self._of_s3():
            self._client.download_file(
                self._bucket, self._prefix + name, str(file), Config=TransferConfig(use_threads=False)
            )

    def older(self, under: str, age: timedelta) -> list[str]:
        """The names of the objects under `under` that were written so long ago, by the server's clock."""
        found = []
        with self._of_s3():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + under):
                now = _now(page)
                found += [
                    each["Key"].removeprefix(self._prefix)
                    for each in page.get("Contents", ())
                    if now - each["LastModified"] >= age
                ]
        return found

    def remove(self, *names: str) -> None:
        """Delete objects; one that is absent counts as deleted."""
        with self._of_s3():
            for name in names:
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    @contextmanager
    def _of_s3(self) -> Iterator[None]:
        """Report an error of S3 as one of the delivery.

        Raises:
            DeliveryError: names the server or the bucket, and what to do.
        """
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,
            HTTPClientError,
            NoCredentialsError,
        )

        try:
            yield
        except ClientError as error:
            raise self._refused(error) from None
        except NoCredentialsError:
            raise DeliveryError(
                f"{self.where}: there are no credentials for {self.place}. Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or run where the machine has a role."
            ) from None
        except (HTTPClientError, ConnectionError) as error:
            raise DeliveryError(
                f"{self.where}: {self._name} does not answer: {type(error).__name__}", again=True
            ) from None
        except Boto3Error as error:  # of an upload; it quotes the error of its request
            cause = error.__context__
            if isinstance(cause, ClientError):
                raise self._refused(cause) from None
            raise DeliveryError(f"{self.where}: {self._name} failed: {type(error).__name__}", again=True) from None
        except (BotoCoreError, ValueError) as error:  # of what is configured: a profile, an address
            raise DeliveryError(f"{self.where}: S3 cannot be used: {str(error).splitlines()[0]}") from None

    @property
    def _name(self) -> str:
        return f"the S3 server {self.server}" if self.server else "Amazon's S3"

    def _refused(self, error: Any) -> DeliveryError:
        code = _code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "NoSuchBucket":
            return DeliveryError(f"{self.where}: there is no bucket {self._bucket} on {self._name}. Create it.")
        if code == "RequestTimeTooSkewed":
            return DeliveryError(
                f"{self.where}: the clock of this machine differs from that of {self._name} by more than S3 accepts. "
                "Set the clock."
            )
        if code == "NotImplemented" or status == 501:
            return DeliveryError(
                f"{self.where}: {self._name} has no conditional writes, without which two deliveries could replace "
                "each other's manifest. Deliver to a folder or to another store."
            )
        if status in {401, 403}:
            return DeliveryError(
                f"{self.where}: {self._name} refuses access to {self.place} ({code}). Correct AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY of this process, or extend their rights."
            )
        again = code in _PASSING or status >= 500
        return DeliveryError(f"{self.where}: {self._name} failed: {code} (HTTP status {status})", again=again)


def _session() -> Any:
    """A session that reads the credentials as they are now, and not the descriptions of AWS's services once more."""
    import boto3
    from botocore.session import Session

    session = Session()
    session.register_component("data_loader", _loader())
    return boto3.session.Session(botocore_session=session)


@cache
def _loader() -> Any:
    from botocore.session import Session

    return Session().get_component("data_loader")


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _now(page: Any) -> datetime:
    return parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
