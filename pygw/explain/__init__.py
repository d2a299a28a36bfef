"""Why a call goes where it goes: the matcher's own decision, in words (`pygw explain`, /explain)."""
